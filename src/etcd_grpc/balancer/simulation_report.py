"""What a simulation found: figures by policy, as objects, as JSON and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from etcd_grpc.balancer.text_table import text_table

__all__ = ["Report", "Result", "summary"]


@dataclass(frozen=True, slots=True)
class Result:
    """What one policy did.

    Attributes:
        policy: As it was named.
        mean_ms: Of the calls that succeeded, as the percentiles; 0 if none did.
        p50_ms: Half of them were at least as fast.
        p90_ms: 90 %.
        p99_ms: 99 %.
        p999_ms: 99.9 %.
        max_ms: The slowest.
        errors: Calls that failed.
        imbalance: Calls of the busiest server over the mean of all; 1 is even.
        shares: The part of the calls that each server got.
    """

    policy: str
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    errors: int
    imbalance: float
    shares: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Report:
    """The results of all policies; ``str`` makes a table, ``report["least_request"]`` is one of them.

    Attributes:
        rate: Calls a second.
        calls: How many.
        seed: Of all chance.
        results: In the order given.
    """

    rate: float
    calls: int
    seed: int
    results: tuple[Result, ...]

    def __getitem__(self, policy: str) -> Result:
        for result in self.results:
            if result.policy == policy:
                return result
        raise KeyError(policy)

    def to_json(self) -> str:
        """The same as JSON, with these names."""
        return msgspec.json.encode(self).decode()

    def __str__(self) -> str:
        names = ("p50_ms", "p90_ms", "p99_ms", "p999_ms", "max_ms", "errors", "imbalance")
        heads = ["policy", *(name.replace("_", " ") for name in names)]
        rows = [[r.policy, *(getattr(r, name) for name in names)] for r in self.results]
        return text_table(heads, rows)


def summary(policy: str, latencies_s: Sequence[float], errors: int, picks: Mapping[str, int]) -> Result:
    """Sum up one policy.

    Args:
        policy: Its name.
        latencies_s: Of the calls that succeeded.
        errors: How many failed.
        picks: How many calls each server got.
    """
    ordered = sorted(latencies_s) or [0.0]
    total = sum(picks.values()) or 1

    def at(part: float) -> float:
        """Nearest rank, in milliseconds."""
        return round(ordered[min(len(ordered) - 1, int(part * len(ordered)))] * 1000, 3)

    return Result(
        policy=policy,
        mean_ms=round(sum(ordered) / len(ordered) * 1000, 3),
        p50_ms=at(0.5),
        p90_ms=at(0.9),
        p99_ms=at(0.99),
        p999_ms=at(0.999),
        max_ms=at(1.0),
        errors=errors,
        imbalance=round(max(picks.values()) * len(picks) / total, 3),
        shares={name: round(count / total, 4) for name, count in picks.items()},
    )
