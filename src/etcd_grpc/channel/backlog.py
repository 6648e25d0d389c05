"""Endpoints that have no channel yet: they get it in slices of time, so that a loop stays responsive.

A real channel takes a tenth of a millisecond to make, ten thousand of them a second and more.  An
asyncio channel lives on the application's loop, and a synchronous one on that which keeps leases.  So
no more than a slice of that happens at once; then everybody else on the loop has a turn.

And no more than some connections are begun at once: gRPC's threads take up what there is to do in the
order in which it came, so a call would wait behind all of them.  Where those do not get on, because
nobody answers there, others are begun after a moment nevertheless.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from etcd_grpc.model import Endpoint

__all__ = ["SLICE_S", "Backlog"]

SLICE_S = 0.005
_LOOK_AGAIN_S = 0.005
_PATIENCE_S = 0.05


class Backlog:
    """What is still to be connected, the oldest first.  Everything happens on one loop.

    Args:
        loop: The loop, whose clock measures slices.
        connect: Makes the channel of one endpoint.
        room: Whether more connections can be begun now.
        after: Called after each slice.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connect: Callable[[Endpoint], None],
        room: Callable[[], bool],
        after: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._connect = connect
        self._room = room
        self._after = after
        self._due: dict[str, Endpoint] = {}
        self._handle: asyncio.Handle | None = None  # of the next slice
        self._patient_until = 0.0

    def put(self, endpoint: Endpoint) -> None:
        """Connect this one later; it replaces one with the same key, in its place."""
        self._due[endpoint.key] = endpoint

    def drop(self, key: str) -> None:
        """It has left, if it was there."""
        self._due.pop(key, None)

    def work(self) -> None:
        """Do one slice now, unless one is due anyway, and go on until nothing is left."""
        if self._due and self._handle is None:
            self._slice()

    def close(self) -> None:
        """Connect no more."""
        self._due.clear()
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def __len__(self) -> int:
        return len(self._due)

    def __contains__(self, key: object) -> bool:
        return key in self._due

    def __iter__(self) -> Iterator[str]:
        """Their keys."""
        return iter(self._due)

    def _slice(self) -> None:
        self._handle = None
        now = self._loop.time()
        if now < self._patient_until and not self._room():
            self._handle = self._loop.call_later(_LOOK_AGAIN_S, self._slice)
            return
        end = now + SLICE_S
        while self._due:
            endpoint = self._due.pop(next(iter(self._due)))
            self._connect(endpoint)
            if self._loop.time() >= end:
                break
        if self._due:
            self._patient_until = self._loop.time() + _PATIENCE_S
            self._handle = self._loop.call_soon(self._slice)
        self._after()
