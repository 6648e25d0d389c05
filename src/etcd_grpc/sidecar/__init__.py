"""A program in any language as an instance of a service: started, probed, registered, drained.

``probe.py`` decides from the answers of probes whether the program is well, ``life.py`` what a signal
or the program's end leads to; both are pure.  ``checks.py``, ``program.py`` and ``standing.py`` do what
is to be done: look, run, register.  ``run.py`` connects them.
"""

from __future__ import annotations

from etcd_grpc.sidecar.checks import GrpcCheck, ProbeTls, TcpCheck
from etcd_grpc.sidecar.probe import ProbeRules
from etcd_grpc.sidecar.run import Settings, run

__all__ = ["GrpcCheck", "ProbeRules", "ProbeTls", "Settings", "TcpCheck", "run"]
