"""``zone_aware``: calls stay in the caller's zone, as far as its endpoints can bear them.

Envoy's zone aware routing, from what a client can know.  The capacity of a zone is the sum of its
endpoints' weights.  Of all callers a part sits in the caller's zone: ``callerShare``, else an equal
part for each zone with endpoints.  If the zone has at least that part of the capacity, all calls stay
in it.  If it has less, as many stay as it has capacity for, part of capacity / part of callers, and
the others go to zones with more capacity than callers, in proportion to what they have to spare.  So
each endpoint anywhere gets about the same load, and as few calls as can be cross a zone's border.

Without endpoints in the caller's zone, or when that is not known, all are used alike.  Each zone has a
child policy of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, TypeVar

import msgspec

from etcd_grpc.balancer.base import Candidate, Picker, Policy, Setup
from etcd_grpc.balancer.settings import ChildPolicy
from etcd_grpc.balancer.split import Split

__all__ = ["ZoneAware", "ZoneAwareSettings", "shares"]

C = TypeVar("C", bound=Candidate)

_EVERYWHERE = ""


class ZoneAwareSettings(msgspec.Struct, frozen=True, rename="camel"):
    """How much stays where.

    Attributes:
        zone: The caller's; "" leaves it to what the channel knows of it.
        caller_share: The part of all callers that are in it, in (0, 1].
    """

    zone: str = ""
    caller_share: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    child_policy: ChildPolicy = msgspec.field(default_factory=lambda: [{"round_robin": {}}])

    wants_call: ClassVar[bool] = False
    wants_outcomes: ClassVar[bool] = False
    heeds_weights: ClassVar[bool] = True

    def build(self, setup: Setup) -> ZoneAware:
        """A new policy."""
        return ZoneAware(self, setup)


class ZoneAware:
    """The policy.

    Args:
        settings: Its settings.
        setup: Makes a child for each zone.
    """

    def __init__(self, settings: ZoneAwareSettings, setup: Setup) -> None:
        self._home = settings.zone or setup.zone
        self._caller_share = settings.caller_share
        self._split = Split(setup.child, setup.rng)

    def children(self) -> Sequence[Policy]:
        return self._split.children()

    def picker(self, candidates: Sequence[C], weights: Sequence[float]) -> Picker[C] | None:
        zones: dict[str, list[tuple[C, float]]] = {}
        for pair in zip(candidates, weights, strict=True):
            zones.setdefault(pair[0].endpoint.zone, []).append(pair)
        home = self._home
        if not home or home not in zones:
            everyone = list(zip(candidates, weights, strict=True))
            return self._split.picker({_EVERYWHERE: (1.0, everyone)})
        capacity = {zone: sum(weight for _, weight in members) for zone, members in zones.items()}
        parts = shares(capacity, home, self._caller_share)
        # Zones without a share keep their child policy, and its position, for when they get one.
        return self._split.picker({zone: (parts[zone], members) for zone, members in zones.items()})


def shares(
    capacity: Mapping[str, float], home: str, caller_share: float | None = None
) -> dict[str, float]:
    """The part of this client's calls for each zone; they add up to 1.

    Args:
        capacity: Of each zone with endpoints, above 0.
        home: The caller's zone, one of them.
        caller_share: The part of all callers that are in it; None: an equal part for each zone.
    """
    total = sum(capacity.values())
    mine = 1 / len(capacity) if caller_share is None else caller_share
    others = (1 - mine) / max(1, len(capacity) - 1)  # of the callers, in each other zone
    stay = min(1.0, capacity[home] / total / mine)
    spare = {zone: max(0.0, part / total - others) for zone, part in capacity.items() if zone != home}
    spared = sum(spare.values())
    if not spared:  # the zone has as much as it needs, but for a rounding error
        return dict.fromkeys(capacity, 0.0) | {home: 1.0}
    return {zone: (1 - stay) * part / spared for zone, part in spare.items()} | {home: stay}
