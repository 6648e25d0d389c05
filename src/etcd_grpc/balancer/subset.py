"""``subset``: each client uses only a few of the endpoints (gRFC A68, random subsetting).

With 1,000 clients and 1,000 endpoints all to all are a million connections.  Each client orders the
endpoints by the XXH64 of their address, seeded with a number of its own, and takes the first
``subsetSize``.  An endpoint that joins or leaves changes at most one place in a subset, and an
endpoint's number of clients is binomial: even, though not exactly.  20 or more is a good size.

``select`` says which endpoints need a connection at all.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Annotated, ClassVar, TypeVar

import msgspec
from xxhash import xxh64_intdigest

from etcd_grpc.balancer.base import Candidate, Picker, Policy, Setup
from etcd_grpc.balancer.settings import ChildPolicy
from etcd_grpc.model import Endpoint

__all__ = ["Subset", "SubsetSettings"]

C = TypeVar("C", bound=Candidate)


class SubsetSettings(msgspec.Struct, frozen=True, rename="camel"):
    """gRFC A68's ``subsetSize``."""

    subset_size: Annotated[int, msgspec.Meta(ge=1)]
    child_policy: ChildPolicy = msgspec.field(default_factory=lambda: [{"round_robin": {}}])

    wants_call: ClassVar[bool] = False
    wants_outcomes: ClassVar[bool] = False
    heeds_weights: ClassVar[bool] = True

    def build(self, setup: Setup) -> Subset:
        """A new policy."""
        return Subset(self, setup)


class Subset:
    """The policy.

    Args:
        settings: Its settings.
        setup: Its ``rng`` makes this client's seed.
    """

    def __init__(self, settings: SubsetSettings, setup: Setup) -> None:
        self._size = settings.subset_size
        self._seed = setup.rng.getrandbits(64)
        self._child = setup.child()

    def children(self) -> Sequence[Policy]:
        return (self._child,)

    def select(self, endpoints: Sequence[Endpoint]) -> Sequence[Endpoint]:
        if len(endpoints) <= self._size:
            return endpoints
        return heapq.nsmallest(self._size, endpoints, key=self._rank)

    def picker(self, candidates: Sequence[C], weights: Sequence[float]) -> Picker[C] | None:
        if len(candidates) > self._size:
            pairs = zip(candidates, weights, strict=True)
            chosen = heapq.nsmallest(self._size, pairs, key=lambda pair: self._rank(pair[0].endpoint))
            candidates, weights = [c for c, _ in chosen], [w for _, w in chosen]
        return self._child.picker(candidates, weights)

    def _rank(self, endpoint: Endpoint) -> int:
        return xxh64_intdigest(endpoint.address.encode(), self._seed)
