"""Which endpoint a call goes to: policies and their configuration.  Pure.

``simulate`` shows what a policy would do; ``with_hash_key`` places a call by a key of its own;
docs/balancing.md says when to use which.
"""

from etcd_grpc.balancer.hash_key import with_hash_key
from etcd_grpc.balancer.simulation import EVERY_POLICY, Server, simulate
from etcd_grpc.balancer.simulation_report import Report, Result

__all__ = ["EVERY_POLICY", "Report", "Result", "Server", "simulate", "with_hash_key"]
