"""How an instance tells who it is, so that clients notice a port that another process has taken over.

The server answers ``grpc.health.v1.Health/Check`` and ``Watch`` with its instance id in the initial
metadata, under ``INSTANCE_KEY``; its entry in etcd says so (``identified``).  A client asks once for
each connection, and now and then again: a process that ends takes its connections with it, so another
process can only be behind another connection.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

__all__ = ["CHECK", "INSTANCE_KEY", "told_id"]

INSTANCE_KEY = "etcd-grpc-instance"
CHECK = "/grpc.health.v1.Health/Check"


def told_id(initial_metadata: Iterable[Any] | None) -> str | None:
    """The instance id in the answer to a health check; None if it has none.

    Args:
        initial_metadata: Pairs of key and value.
    """
    for key, value in initial_metadata or ():
        if key == INSTANCE_KEY:
            return value if isinstance(value, str) else value.decode(errors="replace")
    return None
