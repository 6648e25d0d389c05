"""``canary``: a percentage of the calls to the endpoints that match, the rest to the others.

The percentage holds however many endpoints there are of either kind, unlike a weight.  0 sends
nothing to those that match, 100 nothing to the others; else, if one kind is missing, the other gets
all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, TypeVar

import msgspec

from etcd_grpc.balancer.base import Candidate, Picker, Policy, Setup
from etcd_grpc.balancer.match import Match
from etcd_grpc.balancer.settings import ChildPolicy, Percent
from etcd_grpc.balancer.split import Split

__all__ = ["Canary", "CanarySettings"]

C = TypeVar("C", bound=Candidate)


class CanarySettings(msgspec.Struct, frozen=True, rename="camel"):
    """``match``: which endpoints are the canaries.  ``percent``: of the calls, for them."""

    match: Match
    percent: Percent
    child_policy: ChildPolicy = msgspec.field(default_factory=lambda: [{"round_robin": {}}])

    wants_call: ClassVar[bool] = False
    wants_outcomes: ClassVar[bool] = False
    heeds_weights: ClassVar[bool] = True

    def build(self, setup: Setup) -> Canary:
        """A new policy."""
        return Canary(self, setup)


class Canary:
    """The policy.

    Args:
        settings: Its settings.
        setup: Makes its two children.
    """

    def __init__(self, settings: CanarySettings, setup: Setup) -> None:
        self._match = settings.match
        self._percent = settings.percent
        self._split = Split(setup.child, setup.rng)

    def children(self) -> Sequence[Policy]:
        return self._split.children()

    def picker(self, candidates: Sequence[C], weights: Sequence[float]) -> Picker[C] | None:
        canaries: list[tuple[C, float]] = []
        others: list[tuple[C, float]] = []
        for pair in zip(candidates, weights, strict=True):
            (canaries if self._match(pair[0].endpoint) else others).append(pair)
        percent = self._percent
        return self._split.picker({"canaries": (percent, canaries), "others": (100 - percent, others)})
