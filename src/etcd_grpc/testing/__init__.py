"""Test your own services under faults: a real etcd, a breakable network, your programs as processes.

With ``pip install 'etcd-grpc[testing]'`` pytest has the fixtures ``etcd`` (the endpoint of one etcd
for all tests) and ``etcd_cluster`` (three members for one test, which may break them)::

    def test_calls_go_on_without_etcd(etcd_cluster):
        with etcd_cluster.through_proxies() as proxies:
            ...  # clients and servers of proxies.endpoints
            proxies.cut()

Everything here is real: processes, sockets, signals.  Nothing of it outlives the test process,
however that ends.  docs/testing.md shows it at work.
"""

from __future__ import annotations

from etcd_grpc.devcluster import (
    Admin,
    Cluster,
    DevAuthority,
    Member,
    Proxies,
    Proxy,
    TlsFiles,
    User,
)
from etcd_grpc.testing.process import Process
from etcd_grpc.testing.waiting import wait_until

__all__ = [
    "Admin",
    "Cluster",
    "DevAuthority",
    "Member",
    "Process",
    "Proxies",
    "Proxy",
    "TlsFiles",
    "User",
    "wait_until",
]
