"""``random``: at random, in proportion to weights.

Shares are right on average only: after N calls a share of s is off by about √(N·s).  It needs no
state at all, so many clients with a few calls each spread evenly whatever they did before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Generic, TypeVar

import msgspec

from etcd_grpc.balancer.base import Call, Candidate, Picker, Setup
from etcd_grpc.balancer.chance import drawer

__all__ = ["RandomChoice", "RandomSettings"]

C = TypeVar("C", bound=Candidate)
T = TypeVar("T")


class RandomSettings(msgspec.Struct, frozen=True):
    """There are none."""

    wants_call: ClassVar[bool] = False
    wants_outcomes: ClassVar[bool] = False
    heeds_weights: ClassVar[bool] = True

    def build(self, setup: Setup) -> RandomChoice:
        """A new policy."""
        return RandomChoice(setup)


class RandomChoice:
    """The policy.

    Args:
        setup: Its ``rng`` draws.
    """

    def __init__(self, setup: Setup) -> None:
        self._random = setup.rng.random

    def picker(self, candidates: Sequence[C], weights: Sequence[float]) -> Picker[C]:
        return _Picker(drawer(candidates, weights, self._random), len(candidates))


class _Picker(Generic[T]):
    __slots__ = ("_draw", "_size")

    def __init__(self, draw: Callable[[], T], size: int) -> None:
        self._draw = draw
        self._size = size

    def pick(self, call: Call | None = None) -> T:  # noqa: ARG002
        return self._draw()

    def __len__(self) -> int:
        return self._size
