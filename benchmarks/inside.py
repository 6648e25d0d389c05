"""The one place where benchmarks look into a channel: who can be picked, and what is behind it.

Only reads, so a channel under measurement does what it does in a program.
"""

from __future__ import annotations

from typing import Any, cast

import etcd_grpc
import etcd_grpc.aio

__all__ = ["etcd_member", "pickable"]


def pickable(channel: etcd_grpc.Channel | etcd_grpc.aio.Channel) -> tuple[Any, ...]:
    """The connected endpoints' subchannels among which the next call would choose.

    The same object is returned until that set changes.
    """
    picker = cast("Any", channel._dispatcher._picker)
    return () if picker is None else cast("tuple[Any, ...]", picker._members)


def etcd_member(channel: etcd_grpc.Channel) -> str:
    """``host:port`` of the etcd member that tells a started channel about its endpoints."""
    running = channel._dispatcher._running
    assert running is not None
    return running.plane.session.transport.member
