"""Second connections to endpoints, which take the place of the first once they are connected.

Make before break.  A connection that fails under one name is tried under the other beside it, and
after a rotation of the certificates each endpoint is connected anew while the old connection goes on
taking calls.  Renewals are made a few at a time and in random order, or all clients would fall upon all
servers at once when an authority rotates for everybody.

A rival that fails takes no place, so new certificates that nobody accepts cost nothing; except where
its failing is the news, when health checking has been turned on.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

import grpc

from etcd_grpc.channel.subchannel import Subchannel
from etcd_grpc.channel.ways import Way, Ways

__all__ = ["Rivals"]

C = TypeVar("C", bound=grpc.Channel | grpc.aio.Channel)

_RENEWALS = 8  # at once
# So long is a rival waited for, before a set of which nobody is connected counts as failing.
_PATIENCE_S = 3.0
_FAILURE = grpc.ChannelConnectivity.TRANSIENT_FAILURE
_READY = grpc.ChannelConnectivity.READY


class Rivals(Generic[C]):
    """The rivals of a set's subchannels, by the endpoint's key.

    Args:
        ways: Which there are.
        make: A subchannel like the one that it is to replace, connecting in another way.
        close: Closes one.
        rng: Orders the renewals.
    """

    def __init__(
        self,
        ways: Ways,
        make: Callable[[Subchannel[C], Way], Subchannel[C]],
        close: Callable[[Subchannel[C]], None],
        rng: random.Random,
    ) -> None:
        self._ways = ways
        self._make = make
        self._close = close
        self._rng = rng
        self._rivals: dict[str, list[Subchannel[C]]] = {}
        self._began: dict[str, float] = {}
        self._due: list[str] = []  # keys whose renewal has not begun
        self._forced: set[str] = set()  # keys whose rivals take over even when they fail

    def __iter__(self) -> Iterator[Subchannel[C]]:
        return itertools.chain.from_iterable(tuple(self._rivals.values()))

    def __bool__(self) -> bool:
        return bool(self._rivals or self._due)

    def trying(self, key: str) -> bool:
        """Whether a rival of this endpoint's has not failed yet."""
        return not _failed(self._rivals.get(key, []))

    def undecided(self, now: float) -> bool:
        """Whether one has not yet shown if it can connect, and it is not too long ago."""
        return any(
            now - self._began[key] < _PATIENCE_S and not _failed(rivals)
            for key, rivals in self._rivals.items()
        )

    def challenge(self, key: str, holder: Subchannel[C], now: float) -> None:
        """Begin the next way to connect this endpoint, if the holder and its rivals have failed."""
        current = self._ways.current(holder.way)
        rivals = self._rivals.get(key, [])
        if (current and holder.state is not _FAILURE) or not _failed(rivals):
            return
        way = self._ways.untried({holder.way, *(rival.way for rival in rivals)})
        if way is not None:
            self._rivals.setdefault(key, []).append(self._make(holder, way))
            self._began[key] = now

    def renew(self, keys: Iterable[str], *, even_failing: bool = False) -> None:
        """Connections are made in another way: connect all these endpoints anew.

        Args:
            keys: Theirs.
            even_failing: A rival takes over when it has failed, too.
        """
        keys = set(keys)
        self._forced = keys if even_failing else self._forced & keys
        for key in tuple(self._rivals):
            self.drop(key)
        self._due = sorted(keys)
        self._rng.shuffle(self._due)

    def poll(self, holders: dict[str, Subchannel[C]], now: float) -> list[tuple[str, Subchannel[C]]]:
        """Look at all rivals, and begin renewals that are due; returns those that have won."""
        won = []
        for key, rivals in tuple(self._rivals.items()):
            for rival in rivals:
                rival.look()
            winner = next((rival for rival in rivals if rival.state is _READY), None)
            if winner is None:
                self.challenge(key, holders[key], now)
                if key in self._forced and _failed(rivals):
                    winner = rivals[0]  # under the name that has worked before
            if winner is not None:
                rivals.remove(winner)
                self.drop(key)
                self._forced.discard(key)
                won.append((key, winner))
        busy = sum(not _failed(rivals) for rivals in self._rivals.values())
        while self._due and busy < _RENEWALS:
            key = self._due.pop()
            if key in holders and key not in self._rivals:
                self.challenge(key, holders[key], now)
                busy += 1
        return won

    def drop(self, key: str) -> None:
        """The endpoint needs no rival any more."""
        self._began.pop(key, None)
        for rival in self._rivals.pop(key, ()):
            self._close(rival)

    def close(self) -> None:
        """Close them all."""
        self._due.clear()
        for key in tuple(self._rivals):
            self.drop(key)


def _failed(rivals: list[Subchannel[C]]) -> bool:
    return all(rival.state is _FAILURE for rival in rivals)
