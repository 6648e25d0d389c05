"""A real etcd cluster on this machine, as child processes: for tests, demonstrations and faults.

>>> with Cluster(members=3) as cluster:                                     # doctest: +SKIP
...     print(cluster.environment()["ETCDCTL_ENDPOINTS"])
...     cluster.kill(cluster.leader())

Not for data that matters: it is one machine, and everybody on it gets in.
"""

from __future__ import annotations

from etcd_grpc.devcluster.admin import Admin, User
from etcd_grpc.devcluster.authority import DevAuthority
from etcd_grpc.devcluster.binary import find_etcd_binary
from etcd_grpc.devcluster.cluster import Cluster
from etcd_grpc.devcluster.member import Member
from etcd_grpc.devcluster.proxies import Proxies
from etcd_grpc.devcluster.proxy import Proxy
from etcd_grpc.devcluster.tls import TlsFiles

__all__ = [
    "Admin",
    "Cluster",
    "DevAuthority",
    "Member",
    "Proxies",
    "Proxy",
    "TlsFiles",
    "User",
    "find_etcd_binary",
]
