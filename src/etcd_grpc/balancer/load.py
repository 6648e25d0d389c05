"""What is known of an endpoint's load, apart from who chooses by it.

``Stats`` belong to an endpoint and outlive every picker, every policy's update and the connection.
Any thread may report to them without a lock:

- ``in_flight`` holds one item for each call under way.  Appending to and popping from a list is
  atomic, so the count is exact.
- ``cost`` is one tuple, replaced whole.  Of two reports at the same moment one may win, which an
  average survives.  Counts of outcomes may lose one in the same way; rates survive that, too.

**Peak EWMA** (Finagle, ``PeakEwma.scala``): an estimate of the round-trip time that believes bad news
at once and good news slowly.  With w = exp(-Δt / τ), τ = 10 s: a slower answer replaces the cost, a
faster one moves it, cost = rtt·(1-w) + cost·w.  The load is cost · (calls in flight + 1).

Two things are different here, for the same reason: *what is not known must not attract calls*.

- Finagle lets the cost of a silent endpoint decay towards 0, and then sends a burst there.  Here it
  fades towards the average of the whole set: knowledge gets old, an endpoint does not get faster.
  One that has never answered counts as average, so a new endpoint is neither flooded nor starved.
- A call that failed or was cancelled says nothing good about speed.  It can only raise the cost; else
  a server that fails fast would look like the fastest of all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import exp
from types import MappingProxyType
from typing import NamedTuple

__all__ = ["LOADS", "Average", "Ejection", "Load", "LoadReport", "Stats", "in_flight", "peak_ewma"]

TAU_S = 10.0  # Finagle's decay time
# The average follows the last hundred answers or so: short beside a deployment, long beside one call.
_AVERAGE_SHARE = 1 / 64
_UNKNOWN = (0.0, 0.0)

Load = Callable[["Stats", float], float]  # of an endpoint with a weight; the lower, the better


class LoadReport(NamedTuple):
    """What a backend said of itself (gRFC A51), and since when it does.

    Attributes:
        utilization: Of the backend, 1 is full; the application's own figure, else the CPU's.
        qps: Its queries a second.
        eps: Its errors a second.
        first_s: When its first report came, without a pause longer than the expiration since.
        last_s: When this one came.
    """

    utilization: float
    qps: float
    eps: float
    first_s: float
    last_s: float


@dataclass(frozen=True, slots=True)
class Ejection:
    """An endpoint that gets no calls.

    Attributes:
        until_s: When it may be tried again.
        why: For people.
        base_s: What its time is a multiple of.
        probing: That time has passed, and its answer to one call is awaited.
        seen: Its successes, failures and calls in flight when the probing began.
    """

    until_s: float
    why: str
    base_s: float
    probing: bool = False
    seen: tuple[int, int, int] = (0, 0, 0)


class Average:
    """The mean cost of the endpoints that answer, in seconds; 0 before the first answer."""

    __slots__ = ("cost_s",)

    def __init__(self) -> None:
        self.cost_s = 0.0


class Stats:
    """What calls have shown of one endpoint.

    Args:
        average: Shared by all endpoints of a set.
        since_s: When the endpoint was first seen.

    Attributes:
        in_flight: One item for each call under way on the present connection.
        picks: Calls that were begun.
        successes: Calls that the endpoint answered, if only with an error of the caller's.
        failures: Calls that failed by its fault.
        in_a_row: Failures since the last success.
        alarm_at: So many in a row, or twice as many, ..., make ``observe`` return True; 0: never.
        cost: Peak EWMA in seconds, and when it was so; (0, 0) when unknown.
        report: The last load report of the backend.
        ejection: None while it may get calls.
        ejections: How often it was ejected, less the quiet intervals since (gRFC A50's multiplier).
    """

    __slots__ = (
        "alarm_at",
        "average",
        "cost",
        "ejection",
        "ejections",
        "failures",
        "in_a_row",
        "in_flight",
        "picks",
        "report",
        "since_s",
        "successes",
    )

    def __init__(self, average: Average, since_s: float) -> None:
        self.average = average
        self.since_s = since_s
        self.in_flight: list[None] = []
        self.picks = 0
        self.successes = 0
        self.failures = 0
        self.in_a_row = 0
        self.alarm_at = 0
        self.cost = _UNKNOWN
        self.report: LoadReport | None = None
        self.ejection: Ejection | None = None
        self.ejections = 0

    def connect(self) -> list[None]:
        """The list in which the calls on a new connection are counted.

        The calls on the connection before it still end in the list they began in, and the blackout of
        load reports begins anew (gRFC A58).
        """
        self.report = None
        self.in_flight = []
        return self.in_flight

    def observe(self, ok: bool | None, rtt_s: float, now: float) -> bool:
        """A call has ended.  Any thread.

        Args:
            ok: Whether the endpoint did its part; None if that cannot be said (the caller cancelled).
            rtt_s: Seconds since it was sent.
            now: On the clock of these statistics.

        Returns:
            Whether the policy should be given a ``tick`` now, because of many failures in a row or of
            an answer to a probe of an ejected endpoint.
        """
        average = self.average
        cost_s, stamp_s = self.cost
        if not ok:
            rtt_s = max(rtt_s, cost_s, average.cost_s)
        elif rtt_s < cost_s:
            rtt_s += (cost_s - rtt_s) * exp((stamp_s - now) / TAU_S if stamp_s < now else 0.0)
        self.cost = (rtt_s, now)
        ejection = self.ejection
        if ok:
            average_s = average.cost_s
            average.cost_s = average_s + (rtt_s - average_s) * _AVERAGE_SHARE if average_s else rtt_s
            self.successes += 1
            self.in_a_row = 0
            return ejection is not None and ejection.probing
        if ok is None:
            return False
        self.failures += 1
        self.in_a_row = in_a_row = self.in_a_row + 1
        if ejection is not None:
            return ejection.probing
        return self.alarm_at > 0 and in_a_row % self.alarm_at == 0

    def cost_s(self, now: float) -> float:
        """Peak EWMA of the round-trip time, in seconds, faded towards the average by now."""
        average_s = self.average.cost_s
        cost_s, stamp_s = self.cost
        if not cost_s:
            return average_s
        return average_s + (cost_s - average_s) * exp((stamp_s - now) / TAU_S if stamp_s < now else 0.0)

    def tell(
        self, utilization: float, qps: float, eps: float, now: float, *, expiration_s: float = 180.0
    ) -> None:
        """The backend reported its load (gRFC A51).

        Args:
            utilization: The application's, if it says one, else the CPU's.
            qps: Queries a second.
            eps: Errors a second.
            now: On the clock of these statistics.
            expiration_s: A report after a longer silence counts as the first.
        """
        before = self.report
        fresh = before is None or now - before.last_s > expiration_s
        first_s = now if before is None or fresh else before.first_s
        self.report = LoadReport(utilization, qps, eps, first_s, now)


def in_flight(stats: Stats, weight: float) -> float:
    """Calls in flight for each unit of weight (gRFC A48's active requests)."""
    return len(stats.in_flight) / weight


def peak_ewma(clock: Callable[[], float]) -> Load:
    """Finagle's load: cost · (calls in flight + 1).

    The weight divides only the queue: an idle endpoint of weight 2 is not twice as fast.
    """

    def load(stats: Stats, weight: float) -> float:
        return stats.cost_s(clock()) * (len(stats.in_flight) / weight + 1.0)

    return load


def _only_in_flight(_clock: Callable[[], float]) -> Load:
    return in_flight


# The table of loads: what ``least_request`` can compare.
LOADS: Mapping[str, Callable[[Callable[[], float]], Load]] = MappingProxyType(
    {"in_flight": _only_in_flight, "peak_ewma": peak_ewma}
)
