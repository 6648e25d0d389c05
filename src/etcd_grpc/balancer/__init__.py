"""Which endpoint a call goes to: policies and their configuration.  Pure.

``simulate`` shows what a policy would do; docs/balancing.md says when to use which.
"""

from etcd_grpc.balancer.simulation import EVERY_POLICY, Server, simulate
from etcd_grpc.balancer.simulation_report import Report, Result

__all__ = ["EVERY_POLICY", "Report", "Result", "Server", "simulate"]
