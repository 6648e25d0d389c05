"""A real etcd cluster on this machine, as child processes: for tests, demonstrations and faults.

>>> with Cluster(members=3) as cluster:                                     # doctest: +SKIP
...     print(cluster.environment()["ETCDCTL_ENDPOINTS"])
...     cluster.kill(cluster.leader())

Not for data that matters: no TLS, no authentication, one machine.
"""

from __future__ import annotations

from etcd_grpc.devcluster.binary import find_etcd_binary
from etcd_grpc.devcluster.cluster import Cluster
from etcd_grpc.devcluster.member import Member

__all__ = ["Cluster", "Member", "find_etcd_binary"]
