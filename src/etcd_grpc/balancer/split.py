"""Parting calls among groups of endpoints, each of which has a child policy of its own.

Groups have names, and a group's child policy stays while it has endpoints, so its position outlives
every update.  Shares are kept by ``WeightedTurns``: smooth, and exact in the long run.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

from etcd_grpc.balancer.base import Call, Candidate, Picker, Policy
from etcd_grpc.balancer.turns import WeightedTurns

__all__ = ["Split"]

C = TypeVar("C", bound=Candidate)
T = TypeVar("T")

Members = Sequence[tuple[C, float]]  # candidates with their weights


class Split:
    """The groups' child policies, and whose turn it is.

    Args:
        make: Makes a child policy.
        rng: Chooses where to start.
    """

    def __init__(self, make: Callable[[], Policy], rng: random.Random) -> None:
        self._make = make
        self._positions = itertools.count(rng.randrange(1 << 16))
        self._children: dict[str, Policy] = {}

    def children(self) -> Sequence[Policy]:
        """The groups' policies."""
        return tuple(self._children.values())

    def picker(self, groups: Mapping[str, tuple[float, Members[C]]]) -> Picker[C] | None:
        """A picker for ``groups``: by name, the share of calls and the members.

        A group with a share of 0 gets no call.  Nor does one without members; its share goes to the
        others in proportion.
        """
        shares, pickers, kept = [], [], {}
        for name, (share, members) in groups.items():
            if not members:
                continue
            child = kept[name] = self._children.get(name) or self._make()
            if share <= 0:
                continue
            picker = child.picker([c for c, _ in members], [w for _, w in members])
            if picker is not None:
                shares.append(share)
                pickers.append(picker)
        self._children = kept
        if len(pickers) <= 1:
            return pickers[0] if pickers else None
        return _Picker(WeightedTurns(pickers, shares, self._positions), sum(map(len, pickers)))


class _Picker(Generic[T]):
    __slots__ = ("_size", "_turns")

    def __init__(self, turns: WeightedTurns[Picker[T]], size: int) -> None:
        self._turns = turns
        self._size = size

    def pick(self, call: Call | None = None) -> T:
        return self._turns.pick().pick(call)

    def __len__(self) -> int:
        return self._size
