"""What several test modules share: a raw etcd client, servers in their own processes, waiting."""
