"""``slow_start``: a new endpoint gets its share by and by, while its caches fill and its code warms up.

Envoy's formula: weight · max(``minWeightPercent``, (t / ``window``) ^ (1 / ``aggression``)), t the
age.  An aggression of 1 is a straight line, more than 1 rises fast at first.

The age is counted from when this client first saw the endpoint, in this process's life; it belongs to
the endpoint's statistics, so no update of the set starts a ramp again.  Endpoints seen together ramp
together, which changes nothing among them: a client that starts does not slow anybody down.

The child must heed weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, TypeVar

import msgspec

from etcd_grpc.balancer.base import Candidate, Picker, Policy, Setup
from etcd_grpc.balancer.settings import ChildPolicy, Percent, Seconds, require

__all__ = ["SlowStart", "SlowStartSettings"]

C = TypeVar("C", bound=Candidate)

_STEPS = 30  # a ramp is a staircase: smooth enough, and a new picker only at each step
_SHORTEST_STEP_S = 0.1


class SlowStartSettings(msgspec.Struct, frozen=True, rename="camel"):
    """Envoy's ``slow_start_config``."""

    window: Seconds = Seconds(30)
    aggression: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    min_weight_percent: Percent = 10
    child_policy: ChildPolicy = msgspec.field(default_factory=lambda: [{"weighted_round_robin": {}}])

    wants_call: ClassVar[bool] = False
    wants_outcomes: ClassVar[bool] = False
    heeds_weights: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require("window", self.window > 0, "more than 0s")
        # 0 would keep an endpoint without any call, and what has weight 0 was refused before.
        require("minWeightPercent", self.min_weight_percent > 0, "more than 0")

    def build(self, setup: Setup) -> SlowStart:
        """A new policy."""
        return SlowStart(self, setup)


class SlowStart:
    """The policy.

    Args:
        settings: Its settings.
        setup: Its ``clock`` tells the age.
    """

    def __init__(self, settings: SlowStartSettings, setup: Setup) -> None:
        self._settings = settings
        self._clock = setup.clock
        self._child = setup.child()
        self._step_s = max(settings.window / _STEPS, _SHORTEST_STEP_S)
        self._due_s: float | None = None  # while an endpoint ramps

    def children(self) -> Sequence[Policy]:
        return (self._child,)

    def picker(self, candidates: Sequence[C], weights: Sequence[float]) -> Picker[C] | None:
        now = self._clock()
        factors = [self.factor(now - candidate.stats.since_s) for candidate in candidates]
        self._due_s = now + self._step_s if min(factors) < 1 else None
        ramped = [weight * factor for weight, factor in zip(weights, factors, strict=True)]
        return self._child.picker(candidates, ramped)

    def factor(self, age_s: float) -> float:
        """What the weight of an endpoint of this age is multiplied by."""
        settings = self._settings
        if age_s >= settings.window:
            return 1.0
        ramp: float = (max(0.0, age_s) / settings.window) ** (1 / settings.aggression)
        return max(settings.min_weight_percent / 100, ramp)

    def next_tick(self) -> float | None:
        return self._due_s

    def tick(self, now: float) -> bool:
        return self._due_s is not None and now >= self._due_s
