"""What gRPC says of instances that cannot be connected, for errors and for ``explain``.

A connection's state has no reason in it; a call that fails for it has.  So an instance that fails is
asked for its health: the call fails at once, with C-core's last error in its details.  That is done
only for instances that are failing, a few at a time, each at most every half minute.  Whoever fails a
call for want of a connection waits for the first answer, but not for long.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable
from math import inf
from typing import Generic, TypeVar

import grpc

from etcd_grpc.channel.identity_check import Answer
from etcd_grpc.channel.subchannel import Connector, Subchannel
from etcd_grpc.posting import post

__all__ = ["LastErrors", "last_error"]

C = TypeVar("C", bound=grpc.Channel | grpc.aio.Channel)

_AGAIN_S = 30.0
_PATIENCE_S = 1.0  # what it may cost a call that fails anyway
_AT_ONCE = 3
_ENOUGH = 20  # so many tell what is wrong with ten thousand


class LastErrors(Generic[C]):
    """The last errors of one channel's instances; on its loop, but for ``why``.

    Args:
        loop: The loop.
        connector: Asks in its world.
        told: Called on the loop when more is known, or is not worth waiting for any longer.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, connector: Connector[C], told: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._connector = connector
        self._told = told
        self._asked: dict[Subchannel[C], float] = {}  # those that are failing, and when they were
        self._asking: set[Subchannel[C]] = set()
        self._waited_for = -inf  # until then calls wait
        self._patience: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def pending(self) -> bool:
        """Whether nothing is known yet, and it is worth waiting for an answer."""
        return bool(self._asking) and self._loop.time() < self._waited_for and not self.why()

    def why(self) -> str:
        """The last error of one of them; "" if none is known.  Any thread."""
        return next((s.failure for s in tuple(self._asked) if s.failure), "")

    def notice(self, failing: Iterable[Subchannel[C]]) -> None:
        """These cannot be connected: ask some of them, unless that was done a moment ago."""
        if self._closed:
            return
        some = tuple(itertools.islice(failing, _ENOUGH))
        self._asked = {s: self._asked[s] for s in some if s in self._asked}
        now = self._loop.time()
        for subchannel in some:
            if len(self._asking) >= _AT_ONCE:
                return
            if now - self._asked.get(subchannel, -inf) > _AGAIN_S:
                self._ask(subchannel, now)

    def close(self) -> None:
        """Tell nothing more."""
        self._closed = True
        if self._patience is not None:
            self._patience.cancel()

    def _ask(self, subchannel: Subchannel[C], now: float) -> None:
        def answered(answer: Answer) -> None:
            post(self._loop, self._answered, subchannel, answer)

        try:
            self._connector.ask(subchannel.channel, answered)
        except ValueError:  # closed meanwhile
            return
        self._asked[subchannel] = now
        if not self._asking and not self.why():
            self._waited_for = now + _PATIENCE_S
            if self._patience is not None:
                self._patience.cancel()
            self._patience = self._loop.call_later(_PATIENCE_S, self._told)
        self._asking.add(subchannel)

    def _answered(self, subchannel: Subchannel[C], answer: Answer) -> None:
        self._asking.discard(subchannel)
        if self._closed:
            return
        if subchannel.state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
            subchannel.failure = last_error(answer.failure)
        self._told()


def last_error(details: str) -> str:
    """The part of C-core's details that says what was wrong; "" if there is none."""
    _, found, error = details.partition("last error: ")
    return error.removeprefix("UNKNOWN: ").removeprefix("UNAVAILABLE: ") if found else ""
