"""Child processes that cannot outlive us: etcd members, demo servers, the sidecar's program."""
