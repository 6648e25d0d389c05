"""A thin session with etcd's v3 API: pure machines, and the thread and streams that drive them."""
