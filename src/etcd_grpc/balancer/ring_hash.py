"""``ring_hash``: the same key to the same endpoint, with few moves when the set changes.

Consistent hashing (Karger et al., 1997): each endpoint has points on a ring, at the XXH64 of
``<address>_<i>``; a call goes to the owner of the first point at or after the hash of its key.  When
an endpoint leaves, its keys alone move, to those that follow on the ring; every client with the same
set has the same ring.

The key is the one given with the call, else the value of the header ``requestHashHeader`` (gRFC A76),
else there is none and the call goes to a random point.  Endpoints that are not connected are not on
the ring, and those that were tried for the call (``Call.skip``) are passed over: both as A42 walks
on.

**How many points.**  gRFC A42 makes the ring about as large whatever the number of endpoints, 1024 to
4096 points.  So the number of points of *every* endpoint changes when one leaves, and twice as many
keys move as must; and of 10,000 endpoints more than half have no point at all.  Here an endpoint has
512 points for a weight of 1, which does not depend on the others.  Then a share is off by 1/√512 =
4.4 % (one standard deviation), and the departure of one of n moves (1 ± 0.05)/n of the keys.  Only
when the ring would have more than ``maxRingSize`` points is that number halved, for all endpoints,
and again; at such a step, once for each doubling of the set, half of the keys move.  131,072 points
are reached at 256 endpoints; 10,000 have 8 points each.

A change costs what it changes, and one pass over the ring: hashes of endpoints that stay are kept,
and the new ones merged into the sorted ring.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Generic, TypeVar

import msgspec
from xxhash import xxh64_intdigest

from etcd_grpc.balancer.base import Call, Candidate, Picker, Setup
from etcd_grpc.balancer.settings import require

__all__ = ["Ring", "RingHash", "RingHashSettings"]

C = TypeVar("C", bound=Candidate)
T = TypeVar("T")

_POINTS = 512  # of an endpoint of weight 1
_LARGEST = 8 * 1024 * 1024  # gRFC A42's limit of both sizes

RingSize = Annotated[int, msgspec.Meta(ge=1, le=_LARGEST)]


class RingHashSettings(msgspec.Struct, frozen=True, rename="camel"):
    """``minRingSize`` and ``maxRingSize`` in points; ``requestHashHeader``, which has the key."""

    min_ring_size: RingSize = 1024
    max_ring_size: RingSize = 131_072
    request_hash_header: str = ""

    wants_call: ClassVar[bool] = True
    wants_outcomes: ClassVar[bool] = False
    heeds_weights: ClassVar[bool] = False  # they do, but every change of one moves keys

    def __post_init__(self) -> None:
        good = self.min_ring_size <= self.max_ring_size
        require("minRingSize", good, f"at most maxRingSize ({self.max_ring_size})")
        header = self.request_hash_header
        good = header == header.lower().strip() and not header.endswith("-bin")  # gRFC A76
        require("requestHashHeader", good, "a lower-case header name without -bin")

    def build(self, setup: Setup) -> RingHash:
        """A new policy."""
        return RingHash(self, setup)


class Ring:
    """The points of a set of addresses.

    Attributes:
        points: Sorted.  Replaced, never changed, so a picker may hold it.
        owners: The address at each point, and at points that have been there.  Only added to while a
            picker may read it: a point means the same address for ever.
    """

    def __init__(self) -> None:
        self.points: list[int] = []
        self.owners: dict[int, str] = {}
        self._counts: Mapping[str, int] = {}

    def update(self, counts: Mapping[str, int]) -> None:
        """Have the first ``counts[address]`` points of each address and no others."""
        before = self._counts
        if counts == before:
            return
        gone = {
            point
            for address, count in before.items()
            if count > counts.get(address, 0)
            for point in _points(address, counts.get(address, 0), count)
        }
        fresh = {
            point: address
            for address, count in counts.items()
            if count > before.get(address, 0)
            for point in _points(address, before.get(address, 0), count)
        }
        kept = [point for point in self.points if point not in gone] if gone else self.points
        self.points = sorted(kept + sorted(fresh))  # timsort merges two sorted runs in one pass
        self.owners.update(fresh)
        if len(self.owners) > 2 * len(self.points):
            self.owners = {point: self.owners[point] for point in self.points}
        self._counts = counts


class RingHash:
    """The policy.

    Args:
        settings: Its settings.
        setup: Its ``rng`` places calls without a key.
    """

    def __init__(self, settings: RingHashSettings, setup: Setup) -> None:
        self._settings = settings
        self._rng = setup.rng
        self._ring = Ring()

    def picker(self, candidates: Sequence[C], weights: Sequence[float]) -> Picker[C]:
        by_address = {candidate.endpoint.address: candidate for candidate in candidates}
        scale = self._scale(sum(weights))
        pairs = zip(candidates, weights, strict=True)
        self._ring.update({c.endpoint.address: max(1, round(w * scale)) for c, w in pairs})
        return _Picker(self._ring, by_address, self._settings.request_hash_header, self._rng)

    def _scale(self, total: float) -> float:
        """Points for a weight of 1: 512 doubled or halved until the ring's size is within bounds."""
        scale = float(_POINTS)
        while total * scale < self._settings.min_ring_size:
            scale *= 2
        while total * scale > self._settings.max_ring_size:
            scale /= 2
        return scale


class _Picker(Generic[T]):
    __slots__ = ("_by_address", "_header", "_owners", "_points", "_rng")

    def __init__(
        self, ring: Ring, by_address: Mapping[str, T], header: str, rng: random.Random
    ) -> None:
        self._points = ring.points
        self._owners = ring.owners
        self._by_address = by_address
        self._header = header
        self._rng = rng

    def pick(self, call: Call | None = None) -> T:
        points = self._points
        at = bisect_left(points, self._hash(call))
        if at == len(points):
            at = 0
        chosen = self._by_address[self._owners[points[at]]]
        if call is None or chosen not in call.skip:
            return chosen
        return self._walk(at, call)

    def __len__(self) -> int:
        return len(self._by_address)

    def _hash(self, call: Call | None) -> int:
        if call is not None:
            if call.key is not None:
                return xxh64_intdigest(call.key.encode())
            if self._header:
                values = [value for name, value in call.metadata if name == self._header]
                if values:  # gRFC A76: joined as in HTTP
                    parts = [v.encode() if isinstance(v, str) else v for v in values]
                    return xxh64_intdigest(b",".join(parts))
        return self._rng.getrandbits(64)

    def _walk(self, at: int, call: Call) -> T:
        """The next owner on the ring that was not tried; when all were, the first again."""
        points = self._points
        for step in range(1, len(points)):
            point = points[(at + step) % len(points)]
            chosen = self._by_address[self._owners[point]]
            if chosen not in call.skip:
                return chosen
        return self._by_address[self._owners[points[at]]]


def _points(address: str, start: int, stop: int) -> list[int]:
    prefix = address.encode()
    return [xxh64_intdigest(b"%b_%d" % (prefix, number)) for number in range(start, stop)]
