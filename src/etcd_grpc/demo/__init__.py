"""The demonstration: a cluster, servers and a client under load, through named phases."""
