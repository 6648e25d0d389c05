"""What is left of a call's time, and whether and when another attempt follows one that has failed."""

from __future__ import annotations

import time
from typing import Any

import grpc

from etcd_grpc.channel.retry import Attempts, never_left
from etcd_grpc.channel.subchannel import Subchannel

__all__ = ["delay_after", "left_until"]


def left_until(deadline: float | None) -> float | None:
    """Seconds until ``deadline`` (on time.monotonic's clock), not below 0."""
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def delay_after(
    failure: Any, attempts: Attempts, subchannel: Subchannel[Any], deadline: float | None
) -> float | None:
    """Seconds until a failed attempt is followed by the next one; None: ``failure`` is final."""
    if not isinstance(failure, grpc.RpcError):
        # "Cannot invoke RPC on closed channel!": picked just before the endpoint left.
        return 0.0 if subchannel.closed else None
    code = failure.code()
    address, connected = subchannel.endpoint.address, subchannel.connected()
    unseen = never_left(code, failure.details(), address, connected)
    delay = attempts.next_delay(code, failure.trailing_metadata(), unseen=unseen)
    left = left_until(deadline)
    if delay is None or (left is not None and delay >= left):
        return None
    return delay
