"""``round_robin``: one after the other, exact to one call.  Weights do not matter, as in gRPC.

The position belongs to the policy and goes on over changes of the set, so a set that changes often
does not favour its first members; it starts at random, so that many clients that start together do
not all call the same instance first.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import ClassVar, TypeVar

import msgspec

from etcd_grpc.balancer.base import Candidate, Picker, Setup
from etcd_grpc.balancer.turns import RoundTurns

__all__ = ["RoundRobin", "RoundRobinSettings"]

C = TypeVar("C", bound=Candidate)


class RoundRobinSettings(msgspec.Struct, frozen=True):
    """There are none."""

    wants_call: ClassVar[bool] = False
    wants_outcomes: ClassVar[bool] = False
    heeds_weights: ClassVar[bool] = False

    def build(self, setup: Setup) -> RoundRobin:
        """A new policy."""
        return RoundRobin(setup)


class RoundRobin:
    """The policy.

    Args:
        setup: Its ``rng`` chooses where to start.
    """

    def __init__(self, setup: Setup) -> None:
        self._positions = itertools.count(setup.rng.randrange(1 << 16))

    def picker(self, candidates: Sequence[C], weights: Sequence[float]) -> Picker[C]:  # noqa: ARG002
        return RoundTurns(candidates, self._positions)
