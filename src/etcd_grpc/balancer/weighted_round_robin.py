"""``weighted_round_robin``: turns in proportion to weights (gRFC A58).

The weights are what the backends report of themselves, as soon as two of them do: with ORCA load
reports (gRFC A51) weight = qps / (utilization + eps / qps · penalty), that is the rate that a backend
would serve when full.  A backend without a usable report gets the mean of the others.  Until then the
weights are those of the registry; all alike, it is ``round_robin``, exact to one call.

A report is not used in its first 10 s, while a backend's figures are still those of warming up
(``blackoutPeriod``), nor when it is older than 3 min (``weightExpirationPeriod``).  Weights are
computed every second (``weightUpdatePeriod``), never more often than every 100 ms.

What a wrapper has done to an endpoint's weight, such as ``slow_start``, is done to its reported
weight, too.  How turns are taken stands in ``turns.py``.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Annotated, ClassVar, TypeVar

import msgspec

from etcd_grpc.balancer.base import Candidate, Picker, Setup
from etcd_grpc.balancer.load import Stats
from etcd_grpc.balancer.settings import Seconds, require
from etcd_grpc.balancer.turns import RoundTurns, WeightedTurns, alike

__all__ = ["WeightedRoundRobin", "WeightedRoundRobinSettings"]

C = TypeVar("C", bound=Candidate)

_SHORTEST_UPDATE_S = 0.1  # gRFC A58


class WeightedRoundRobinSettings(msgspec.Struct, frozen=True, rename="camel"):
    """gRFC A58's.  Out-of-band reports are not asked for: reports come with the answers to calls."""

    blackout_period: Seconds = Seconds(10)
    weight_expiration_period: Seconds = Seconds(180)
    weight_update_period: Seconds = Seconds(1)
    error_utilization_penalty: Annotated[float, msgspec.Meta(ge=0)] = 1.0
    enable_oob_load_report: bool = False

    wants_call: ClassVar[bool] = False
    wants_outcomes: ClassVar[bool] = False
    heeds_weights: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require("weightExpirationPeriod", self.weight_expiration_period > 0, "more than 0s")
        require("enableOobLoadReport", not self.enable_oob_load_report, "false")

    def build(self, setup: Setup) -> WeightedRoundRobin:
        """A new policy."""
        return WeightedRoundRobin(self, setup)


class WeightedRoundRobin:
    """The policy.

    Args:
        settings: Its settings.
        setup: Its ``rng`` chooses where to start, its ``clock`` tells the age of reports.
    """

    def __init__(self, settings: WeightedRoundRobinSettings, setup: Setup) -> None:
        self._settings = settings
        self._clock = setup.clock
        self._positions = itertools.count(setup.rng.randrange(1 << 16))
        self._every_s = max(settings.weight_update_period, _SHORTEST_UPDATE_S)
        self._stats: tuple[Stats, ...] = ()
        self._used: list[float] = []
        self._due_s = setup.clock() + self._every_s

    def picker(self, candidates: Sequence[C], weights: Sequence[float]) -> Picker[C]:
        self._stats = tuple(candidate.stats for candidate in candidates)
        self._used = self._reported(self._clock())
        if self._used:
            given = zip(self._used, weights, candidates, strict=True)
            weights = [reported * weight / c.endpoint.weight for reported, weight, c in given]
        if alike(weights):
            return RoundTurns(candidates, self._positions)
        return WeightedTurns(candidates, weights, self._positions)

    def next_tick(self) -> float | None:
        return self._due_s

    def tick(self, now: float) -> bool:
        if now < self._due_s:
            return False
        self._due_s = now + self._every_s
        return self._reported(now) != self._used

    def _reported(self, now: float) -> list[float]:
        """The weights by load reports; empty if fewer than two endpoints have one."""
        found = [self._weight(stats, now) for stats in self._stats]
        known = [weight for weight in found if weight > 0]
        if len(known) < 2:
            return []
        mean = sum(known) / len(known)
        return [weight or mean for weight in found]

    def _weight(self, stats: Stats, now: float) -> float:
        """gRFC A58's formula; 0 without a usable report."""
        report, settings = stats.report, self._settings
        if (
            report is None
            or report.qps <= 0
            or report.utilization <= 0
            or now - report.last_s >= settings.weight_expiration_period
            or now - report.first_s < settings.blackout_period
        ):
            return 0.0
        penalty = report.eps / report.qps * settings.error_utilization_penalty
        return report.qps / (report.utilization + penalty)
