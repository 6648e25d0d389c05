"""Taking turns in proportion to weights: smooth, exact in the long run, without a lock, in log n.

Position k stands at the point k·φ mod 1, φ the golden ratio; each member owns an interval of [0, 1)
as long as its share; whoever owns the point has the turn.  Among all such sequences this one spreads
best: any N points in a row leave gaps of at most three lengths (Steinhaus's three-gap theorem), so a
member with a share of s comes at nearly even distances of 1/s, and after N turns is off by O(log N),
not by √N as chance would be.

gRFC A58's static stride scheduler gives the same promise, but steps over members until one is due: as
many steps as the largest weight is above the mean, which with 10,000 endpoints can be 10,000.  Here a
turn is one multiplication and one bisection, whatever the weights, and they are not rounded to 16
bits.

Points are integers modulo 2**64, so no precision is lost however long the sequence.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

from etcd_grpc.balancer.base import Call

__all__ = ["RoundTurns", "WeightedTurns", "alike"]

T = TypeVar("T")

_GOLDEN = 0x9E3779B97F4A7C15  # 2**64 / φ, odd: every point is visited once in 2**64 turns
_SPAN = 1 << 64
_MASK = _SPAN - 1


class RoundTurns(Generic[T]):
    """A picker: one after the other.

    Args:
        members: Not empty.
        positions: Counts up; shared by all pickers of a policy, so that turns go on.

    Attributes:
        turn: As ``pick``, without a frame of the interpreter: members[next(positions) % len(members)].
    """

    __slots__ = ("_members", "turn")

    def __init__(self, members: Sequence[T], positions: Iterator[int]) -> None:
        self._members = tuple(members)
        # next() on a count is one atomic step, so threads need no lock and no call is counted twice.
        # Nothing is kept between two steps, so what threads do at the same time does not mix.
        places = map(len(self._members).__rmod__, positions)
        self.turn: Callable[[], T] = map(self._members.__getitem__, places).__next__

    def pick(self, call: Call | None = None) -> T:  # noqa: ARG002
        return self.turn()

    def __len__(self) -> int:
        return len(self._members)


class WeightedTurns(Generic[T]):
    """A picker: turns in proportion to weights.

    Args:
        members: Not empty.
        weights: Of each; not all 0.
        positions: Counts up; shared by all pickers of a policy.
    """

    __slots__ = ("_ends", "_members", "_positions")

    def __init__(
        self, members: Sequence[T], weights: Sequence[float], positions: Iterator[int]
    ) -> None:
        ends = list(itertools.accumulate(weights))
        scale = _SPAN / ends[-1]
        self._members = tuple(members)
        # Where each interval ends; the last one's end is not needed, and rounding cannot pass it.
        self._ends = [int(end * scale) for end in ends[:-1]]
        self._positions = positions

    def pick(self, call: Call | None = None) -> T:  # noqa: ARG002
        point = next(self._positions) * _GOLDEN & _MASK
        return self._members[bisect_right(self._ends, point)]

    def __len__(self) -> int:
        return len(self._members)


def alike(weights: Sequence[float]) -> bool:
    """Whether all weights are the same, so that plain turns will do."""
    return weights.count(weights[0]) == len(weights)
