"""Calls that wait until there is an endpoint for them."""

from __future__ import annotations

import logging
from typing import Any, Protocol, TypeVar

import grpc

from etcd_grpc.channel.subchannel import Subchannel

__all__ = ["Waiter", "hand"]

_log = logging.getLogger("etcd_grpc.channel")

C = TypeVar("C", bound=grpc.Channel | grpc.aio.Channel)


class Waiter(Protocol[C]):
    """A call that waits.  On the dispatcher's loop, one of its two methods is called, once."""

    wait_for_ready: bool
    deadline: float | None  # on time.monotonic's clock
    metadata: Any  # of the call

    def go(self, subchannel: Subchannel[C]) -> None:
        """Here is a connected subchannel."""

    def fail(self, code: grpc.StatusCode, why: str) -> None:
        """There is none, and none in sight."""


def hand(subchannel: Subchannel[C], waiter: Waiter[C]) -> None:
    """Let a call go; one with wrong arguments is not to keep those behind it waiting."""
    try:
        waiter.go(subchannel)
    except Exception as error:  # noqa: BLE001 - whatever its arguments cause
        _log.exception("a call that waited for an endpoint cannot be made")
        waiter.fail(grpc.StatusCode.INTERNAL, f"the call cannot be made: {error}")
