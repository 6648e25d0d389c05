"""``filter``: only endpoints that match, as in ``etcd:///greeter?version=v2``.

If none matches, calls fail or wait as if there were no endpoint; with ``fallback`` all endpoints are
used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, TypeVar

import msgspec

from etcd_grpc.balancer.base import Candidate, Picker, Policy, Setup
from etcd_grpc.balancer.match import Match
from etcd_grpc.balancer.settings import ChildPolicy
from etcd_grpc.model import Endpoint

__all__ = ["Filter", "FilterSettings"]

C = TypeVar("C", bound=Candidate)


class FilterSettings(msgspec.Struct, frozen=True, rename="camel"):
    """``match``: which endpoints.  ``fallback``: all, if none matches."""

    match: Match
    fallback: bool = False
    child_policy: ChildPolicy = msgspec.field(default_factory=lambda: [{"round_robin": {}}])

    wants_call: ClassVar[bool] = False
    wants_outcomes: ClassVar[bool] = False
    heeds_weights: ClassVar[bool] = True

    def build(self, setup: Setup) -> Filter:
        """A new policy."""
        return Filter(self, setup)


class Filter:
    """The policy.

    Args:
        settings: Its settings.
        setup: Makes its child.
    """

    def __init__(self, settings: FilterSettings, setup: Setup) -> None:
        self._match = settings.match
        self._fallback = settings.fallback
        self._child = setup.child()

    def children(self) -> Sequence[Policy]:
        return (self._child,)

    def select(self, endpoints: Sequence[Endpoint]) -> Sequence[Endpoint]:
        if self._fallback:
            return endpoints  # those that match may all lose their connections
        return [endpoint for endpoint in endpoints if self._match(endpoint)]

    def picker(self, candidates: Sequence[C], weights: Sequence[float]) -> Picker[C] | None:
        pairs = list(zip(candidates, weights, strict=True))
        chosen = [pair for pair in pairs if self._match(pair[0].endpoint)]
        if not chosen and self._fallback:
            chosen = pairs
        if not chosen:
            return None
        return self._child.picker([c for c, _ in chosen], [w for _, w in chosen])
