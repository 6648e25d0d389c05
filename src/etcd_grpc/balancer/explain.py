"""Why calls go where they go: for each endpoint what the policy goes by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import msgspec

from etcd_grpc.balancer.balancer import Balancer
from etcd_grpc.balancer.base import Candidate
from etcd_grpc.balancer.text_table import text_table

__all__ = ["EndpointReport", "Explanation", "explain"]


@dataclass(frozen=True, slots=True)
class EndpointReport:
    """One endpoint.

    Attributes:
        endpoint: Its key.
        address: ``host:port``.
        state: What the caller of ``explain`` says of its connection; "" if nothing.
        zone: "" when unknown.
        version: "" when unknown.
        weight: As registered.
        in_flight: Calls under way.
        load_ms: Peak EWMA of the round-trip time; the average of all for one that is not known; None
            if no call was timed.
        picks: Calls that were begun.
        share: Of all picks, 0 to 1.
        failures: Calls that failed by its fault.
        ejected_for_s: How long it gets no calls yet, 0 while it is being tried; None if it gets calls.
        why: Why it gets none; "" if it does.
    """

    endpoint: str
    address: str
    state: str
    zone: str
    version: str
    weight: float
    in_flight: int
    load_ms: float | None
    picks: int
    share: float
    failures: int
    ejected_for_s: float | None
    why: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """All endpoints of a channel; ``str`` makes a table.

    Attributes:
        policy: From the outermost wrapper to the innermost policy.
        panicking: So few endpoints are well that all are used.
        endpoints: In the order given.
    """

    policy: str
    panicking: bool
    endpoints: tuple[EndpointReport, ...]

    def to_json(self) -> str:
        """The same as JSON, with these names."""
        return msgspec.json.encode(self).decode()

    def __str__(self) -> str:
        names = [field.name for field in fields(EndpointReport)][1:]  # the key has the address in it
        heads = [name.replace("_", " ") for name in names]
        rows = [[getattr(report, name) for name in names] for report in self.endpoints]
        panic = "; panic: all endpoints are used" if self.panicking else ""
        return f"policy {self.policy}{panic}\n{text_table(heads, rows)}"


def explain(
    balancer: Balancer,
    candidates: Sequence[Candidate],
    now: float,
    states: Mapping[str, str] | None = None,
    whys: Mapping[str, str] | None = None,
) -> Explanation:
    """What ``balancer`` goes by.

    Args:
        balancer: The channel's.
        candidates: All endpoints, connected or not.
        now: On the clock of their statistics.
        states: Of their connections, by the endpoint's key.
        whys: Why they are not connected, by the same.
    """
    total = sum(candidate.stats.picks for candidate in candidates)
    known, troubles = states or {}, whys or {}
    reports = tuple(
        _report(c, now, total, known.get(c.endpoint.key, ""), troubles.get(c.endpoint.key, ""))
        for c in candidates
    )
    return Explanation(str(balancer.config), balancer.panicking, reports)


def _report(candidate: Candidate, now: float, total: int, state: str, trouble: str) -> EndpointReport:
    endpoint, stats = candidate.endpoint, candidate.stats
    ejection = stats.ejection
    cost_s = stats.cost_s(now)
    why = "weight 0" if endpoint.weight <= 0 else trouble
    if ejection is not None:
        why = f"{ejection.why}; being tried" if ejection.probing else ejection.why
    return EndpointReport(
        endpoint=endpoint.key,
        address=endpoint.address,
        state=state,
        zone=endpoint.zone,
        version=endpoint.version,
        weight=endpoint.weight,
        in_flight=len(stats.in_flight),
        load_ms=round(cost_s * 1000, 3) if cost_s else None,
        picks=stats.picks,
        share=round(stats.picks / total, 4) if total else 0.0,
        failures=stats.failures,
        ejected_for_s=None if ejection is None else round(max(0.0, ejection.until_s - now), 1),
        why=why,
    )
