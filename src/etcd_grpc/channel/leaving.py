"""Subchannels that get no calls any more, until the last of theirs has ended."""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

import grpc

from etcd_grpc.channel.subchannel import Connector, Subchannel

__all__ = ["Leaving"]

C = TypeVar("C", bound=grpc.Channel | grpc.aio.Channel)

# How long a thread that has picked a subchannel may take until its call is counted there.
_CLOSE_AFTER_S = 1.0


class Leaving(Generic[C]):
    """Those of one balanced channel.  On its loop.

    Args:
        loop: Where it lives.
        connector: Closes the real channels.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, connector: Connector[C]) -> None:
        self._loop = loop
        self._connector = connector
        self._subchannels: list[Subchannel[C]] = []

    def let_go(self, subchannel: Subchannel[C]) -> None:
        """Nobody picks it any more: close it when it is idle."""
        self._subchannels.append(subchannel)
        self._loop.call_later(_CLOSE_AFTER_S, self._close_when_idle, subchannel)

    def end(self, subchannel: Subchannel[C]) -> None:
        """Close it, and the calls on it."""
        subchannel.closed = True
        self._connector.close(subchannel.channel)

    def close(self) -> None:
        """Close all of them."""
        for subchannel in self._subchannels:
            self.end(subchannel)
        self._subchannels.clear()

    def _close_when_idle(self, subchannel: Subchannel[C]) -> None:
        if subchannel.closed:
            return
        if subchannel.in_flight:
            self._loop.call_later(_CLOSE_AFTER_S, self._close_when_idle, subchannel)
        else:
            self.end(subchannel)
            self._subchannels.remove(subchannel)
