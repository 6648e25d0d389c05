"""``round_robin``: one after the other.

The position belongs to the policy and goes on over changes of the set, so a set that changes often
does not favour its first members; it starts at random, so that many clients that start together do
not all call the same instance first.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

__all__ = ["RoundRobin"]

T = TypeVar("T")


class RoundRobin:
    """The policy.

    Args:
        rng: Chooses where to start.
    """

    def __init__(self, rng: random.Random) -> None:
        self._positions = itertools.count(rng.randrange(1 << 16))

    def picker(self, ready: Sequence[T]) -> _Picker[T]:
        return _Picker(tuple(ready), self._positions)


class _Picker(Generic[T]):
    __slots__ = ("_positions", "_ready")

    def __init__(self, ready: tuple[T, ...], positions: Iterator[int]) -> None:
        self._ready = ready
        self._positions = positions

    def pick(self) -> T:
        # next() on a count is one atomic step, so threads need no lock and no call is counted twice.
        ready = self._ready
        return ready[next(self._positions) % len(ready)]

    def __len__(self) -> int:
        return len(self._ready)
