"""``outlier_detection``: endpoints that fail get no calls for a while (gRFC A50).

Three ways to be ejected:

- *Consecutive failures* (Finagle's failure accrual): so many in a row, at once.  For 5 s at first.
- *Success rate* (A50): at the end of an interval, below the mean of all by 1.9 standard deviations.
- *Failure percentage* (A50): at the end of an interval, above 85 %.

A50's two are off unless configured, as in gRPC; the first is on.  At most ``maxEjectionPercent`` of
the endpoints are ejected, but one may always be (0: none).  Each further ejection is longer, base ·
n, up to ``maxEjectionTime``; n falls by one with each interval without one.  Times are jittered by 20
%, so that many clients do not come back together.

A50 lets an endpoint back when its time has passed.  Here it gets *one call* first, and the next only
when that one has ended: if it succeeds the endpoint is back, if it fails it is ejected anew.  So a
server that accepts and hangs costs one call for each ejection.

If fewer than ``panicThreshold`` percent would be left, all are used, and ``panicking`` says so.

What counts as failure stands in ``ticket.py``, the figures in ``load.Stats``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, ClassVar, Generic, TypeVar

import msgspec

from etcd_grpc.balancer.base import Call, Candidate, Picker, Policy, Setup, select
from etcd_grpc.balancer.load import Ejection, Stats
from etcd_grpc.balancer.panic import PANIC_PERCENT, too_few
from etcd_grpc.balancer.settings import ChildPolicy, Percent, Seconds, require

__all__ = ["FailurePercentage", "OutlierDetection", "OutlierDetectionSettings", "SuccessRate"]

C = TypeVar("C", bound=Candidate)
T = TypeVar("T")

Count = Annotated[int, msgspec.Meta(ge=0)]
Counts = tuple[int, int]  # successes, failures

_JITTER = 0.2


class SuccessRate(msgspec.Struct, frozen=True, rename="camel"):
    """gRFC A50's ``successRateEjection``; ``stdevFactor`` in thousandths."""

    stdev_factor: Count = 1900
    enforcement_percentage: Percent = 100
    minimum_hosts: Count = 5
    request_volume: Count = 100


class FailurePercentage(msgspec.Struct, frozen=True, rename="camel"):
    """gRFC A50's ``failurePercentageEjection``."""

    threshold: Percent = 85
    enforcement_percentage: Percent = 100
    minimum_hosts: Count = 5
    request_volume: Count = 50


class OutlierDetectionSettings(msgspec.Struct, frozen=True, rename="camel"):
    """gRFC A50's, and ours: ``consecutiveFailures`` (0: never), ``consecutiveBaseEjectionTime``,
    ``panicThreshold``.
    """

    interval: Seconds = Seconds(10)
    base_ejection_time: Seconds = Seconds(30)
    max_ejection_time: Seconds = Seconds(300)
    max_ejection_percent: Percent = 10
    success_rate_ejection: SuccessRate | None = None
    failure_percentage_ejection: FailurePercentage | None = None
    consecutive_failures: Count = 5
    consecutive_base_ejection_time: Seconds = Seconds(5)
    panic_threshold: Percent = PANIC_PERCENT
    child_policy: ChildPolicy = msgspec.field(default_factory=lambda: [{"round_robin": {}}])

    wants_call: ClassVar[bool] = False
    wants_outcomes: ClassVar[bool] = True
    heeds_weights: ClassVar[bool] = True  # so far as its child does

    def __post_init__(self) -> None:
        require("interval", self.interval > 0, "more than 0s")
        require("baseEjectionTime", self.base_ejection_time > 0, "more than 0s")
        good = self.consecutive_base_ejection_time > 0
        require("consecutiveBaseEjectionTime", good, "more than 0s")

    def build(self, setup: Setup) -> OutlierDetection:
        """A new policy."""
        return OutlierDetection(self, setup)


class OutlierDetection:
    """The policy.

    Args:
        settings: Its settings.
        setup: Its ``rng`` jitters, its ``clock`` ends ejections.

    Attributes:
        panicking: Too few endpoints are left, so all are used.
    """

    def __init__(self, settings: OutlierDetectionSettings, setup: Setup) -> None:
        self.panicking = False
        self._settings = settings
        self._rng = setup.rng
        self._child = setup.child()
        self._sweep_at = setup.clock() + settings.interval
        self._members: tuple[Stats, ...] = ()
        self._swept: Mapping[Stats, Counts] = {}  # counts at the last sweep
        self._out = 0  # how many are ejected, during a tick

    def children(self) -> Sequence[Policy]:
        return (self._child,)

    def picker(self, candidates: Sequence[C], weights: Sequence[float]) -> Picker[C] | None:
        self._watch(tuple(candidate.stats for candidate in candidates))
        pairs = list(zip(candidates, weights, strict=True))
        usable = [pair for pair in pairs if pair[0].stats.ejection is None]
        self.panicking = too_few(usable, pairs, self._settings.panic_threshold)
        if self.panicking or len(usable) == len(pairs):
            return self._child.picker(candidates, weights)
        picker = self._child.picker([c for c, _ in usable], [w for _, w in usable])
        probes = [candidate for candidate in candidates if self._probe(candidate)]
        return _Probing(picker, probes) if picker and probes else picker

    def next_tick(self) -> float | None:
        waiting = [s.ejection.until_s for s in self._members if s.ejection and not s.ejection.probing]
        return min(self._sweep_at, *waiting) if waiting else self._sweep_at

    def tick(self, now: float) -> bool:
        changed = False
        self._out = sum(stats.ejection is not None for stats in self._members)
        enough = self._settings.consecutive_failures
        for stats in self._members:
            if stats.ejection is not None:
                changed |= self._advance(stats, stats.ejection, now)
            elif enough and stats.in_a_row >= enough:
                why = f"{stats.in_a_row} failures in a row"
                changed |= self._eject(stats, self._settings.consecutive_base_ejection_time, why, now)
        if now >= self._sweep_at:
            self._sweep_at = now + self._settings.interval
            changed |= self._sweep(now)
        return changed

    def _watch(self, members: tuple[Stats, ...]) -> None:
        if members == self._members:
            return
        self._members = members
        self._swept = {stats: self._swept.get(stats) or _counts(stats) for stats in members}
        for stats in members:
            stats.alarm_at = self._settings.consecutive_failures

    def _probe(self, candidate: Candidate) -> bool:
        """Whether the next call may try this endpoint: one at a time, where the child allows it."""
        stats = candidate.stats
        if stats.ejection is None or not stats.ejection.probing or _tried(stats, stats.ejection):
            return False
        return bool(select(self._child, [candidate.endpoint]))

    def _advance(self, stats: Stats, ejection: Ejection, now: float) -> bool:
        """An ejected endpoint: from waiting to probing, from probing to back or ejected anew."""
        if not ejection.probing:
            if now < ejection.until_s:
                return False
            seen = (*_counts(stats), len(stats.in_flight))
            stats.ejection = replace(ejection, probing=True, seen=seen)
            return True
        if stats.failures > ejection.seen[1]:
            self._hold(stats, ejection.base_s, "failed when tried", now)
        elif stats.successes > ejection.seen[0]:
            stats.ejection = None
            stats.in_a_row = 0
            self._out -= 1
        else:
            return not _tried(stats, ejection)  # perhaps the call got lost on the way: offer it again
        return True

    def _eject(self, stats: Stats, base_s: float, why: str, now: float) -> bool:
        """Eject unless enough are; return whether it was done."""
        most = self._settings.max_ejection_percent
        if not most or (self._out and (self._out + 1) * 100 > most * len(self._members)):
            return False
        self._out += 1
        self._hold(stats, base_s, why, now)
        return True

    def _hold(self, stats: Stats, base_s: float, why: str, now: float) -> None:
        stats.ejections += 1
        most_s = max(base_s, self._settings.max_ejection_time)
        held_s = min(base_s * stats.ejections, most_s) * self._rng.uniform(1 - _JITTER, 1 + _JITTER)
        stats.ejection = Ejection(now + held_s, why, base_s)
        stats.in_a_row = 0

    def _sweep(self, now: float) -> bool:
        """gRFC A50's algorithm, at the end of an interval."""
        rates = self._rates()
        changed = self._by_success_rate(rates, now) | self._by_failures(rates, now)
        for stats in self._members:
            if stats.ejection is None and stats.ejections:
                stats.ejections -= 1
        self._swept = {stats: _counts(stats) for stats in self._members}
        return changed

    def _rates(self) -> dict[Stats, tuple[float, int]]:
        """Of each endpoint that had calls in this interval: its success rate, and how many calls."""
        rates = {}
        for stats, (successes, failures) in self._swept.items():
            good = stats.successes - successes
            volume = good + stats.failures - failures
            if volume > 0 and stats.ejection is None:
                rates[stats] = (good / volume, volume)
        return rates

    def _by_success_rate(self, rates: Mapping[Stats, tuple[float, int]], now: float) -> bool:
        settings = self._settings.success_rate_ejection
        if settings is None:
            return False
        judged = {s: rate for s, (rate, volume) in rates.items() if volume >= settings.request_volume}
        if not judged or len(judged) < settings.minimum_hosts:
            return False
        mean = sum(judged.values()) / len(judged)
        deviation = math.sqrt(sum((rate - mean) ** 2 for rate in judged.values()) / len(judged))
        least = mean - deviation * settings.stdev_factor / 1000
        low = {s: f"success rate {rate:.1%}" for s, rate in judged.items() if rate < least}
        return self._enforce(low, settings.enforcement_percentage, now)

    def _by_failures(self, rates: Mapping[Stats, tuple[float, int]], now: float) -> bool:
        settings = self._settings.failure_percentage_ejection
        if settings is None:
            return False
        judged = {s: rate for s, (rate, volume) in rates.items() if volume >= settings.request_volume}
        if len(judged) < settings.minimum_hosts:
            return False
        most = settings.threshold / 100
        high = {s: f"{1 - rate:.1%} of calls failed" for s, rate in judged.items() if 1 - rate > most}
        return self._enforce(high, settings.enforcement_percentage, now)

    def _enforce(self, outliers: Mapping[Stats, str], percent: float, now: float) -> bool:
        changed = False
        for stats, why in outliers.items():
            if stats.ejection is None and self._rng.random() * 100 < percent:
                changed |= self._eject(stats, self._settings.base_ejection_time, why, now)
        return changed


class _Probing(Generic[T]):
    """The child's picker, but first one call for each endpoint that is tried."""

    __slots__ = ("_inner", "_probes")

    def __init__(self, inner: Picker[T], probes: list[T]) -> None:
        self._inner = inner
        self._probes = probes

    def pick(self, call: Call | None = None) -> T:
        if self._probes:
            try:
                return self._probes.pop()  # atomic: no two calls get the same one
            except IndexError:
                pass  # another thread was faster
        return self._inner.pick(call)

    def __len__(self) -> int:
        return len(self._inner)


def _counts(stats: Stats) -> Counts:
    return (stats.successes, stats.failures)


def _tried(stats: Stats, ejection: Ejection) -> bool:
    """Whether a call is under way that was not when the probing began: a stream may be older."""
    return len(stats.in_flight) > ejection.seen[2]
