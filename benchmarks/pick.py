"""What choosing an endpoint costs: pick and accounting, without any network.

Time for one call of each policy over 10 to 10,000 endpoints: the pick, counting the call as in flight
and out again, and, for policies that want outcomes, telling how it ended and how long it took.

The full run draws docs/plots/pick.svg.
"""

from __future__ import annotations

import gc
import itertools
import random
import time
from collections.abc import Callable, Mapping, Sequence

import grpc

from benchmarks.outcome import Outcome, Size
from benchmarks.plot import Chart, Line
from benchmarks.stage import ROOT
from etcd_grpc.balancer.balancer import Balancer
from etcd_grpc.balancer.base import Call, Picker
from etcd_grpc.balancer.load import Stats
from etcd_grpc.balancer.policies import PolicyArgument, parse_policy
from etcd_grpc.balancer.stats_table import StatsTable
from etcd_grpc.balancer.ticket import Ticket
from etcd_grpc.model import Endpoint

__all__ = ["run"]

_EWMA = {"least_request": {"load": "peak_ewma"}}
_POLICIES: Mapping[str, PolicyArgument] = {
    "pick_first": "pick_first",
    "round_robin": "round_robin",
    "random": "random",
    "weighted_round_robin": "weighted_round_robin",
    "least_request": "least_request",
    "least_request_peak_ewma": _EWMA,
    "ring_hash": "ring_hash",
    "outlier_detection": {"outlier_detection": {"childPolicy": [_EWMA]}},
}
_SIZES = (10, 100, 1_000, 10_000)
_PLOT = ROOT / "docs" / "plots" / "pick.svg"
_DRAWN = ("round_robin", "least_request", "ring_hash", "least_request_peak_ewma", "outlier_detection")
_OK = grpc.StatusCode.OK
# Batches of calls of each policy, and calls in each.  The median of the batches is the figure: what
# disturbs a few of them does not move it.
_BATCHES = {Size.FULL: (101, 2_000), Size.QUICK: (31, 1_000), Size.TINY: (3, 100)}


class _Node:
    __slots__ = ("endpoint", "stats")

    def __init__(self, endpoint: Endpoint, stats: Stats) -> None:
        self.endpoint = endpoint
        self.stats = stats


def run(size: Size) -> Outcome:
    """Time every policy with sets of all sizes."""
    batches, calls = _BATCHES[size]
    results: dict[str, float] = {}
    for count in _SIZES:
        for name, policy in _POLICIES.items():
            nodes = _nodes(count, weighted=name == "weighted_round_robin")
            balancer = Balancer(parse_policy(policy), random.Random(1), time.monotonic)
            began = time.perf_counter()
            picker = balancer.picker(nodes)
            built = time.perf_counter() - began
            assert picker is not None
            one = _one(balancer, picker)
            results[f"{name}_{count}_us"] = round(_median_us(one, batches, calls), 3)
            results[f"{name}_{count}_build_ms"] = round(built * 1000, 2)
            if count == max(_SIZES):
                began = time.perf_counter()
                balancer.picker(nodes[1:])
                results[f"{name}_{count}_rebuild_ms"] = round((time.perf_counter() - began) * 1000, 2)
    if size is Size.FULL:
        _PLOT.parent.mkdir(exist_ok=True)
        _PLOT.write_text(_draw(results), encoding="utf-8")
    return Outcome(results, {"batches": batches, "calls": calls})


def _draw(results: Mapping[str, float]) -> str:
    """What a pick costs, over the size of the set."""
    return Chart(
        "One pick, with accounting",
        "endpoints",
        "microseconds",
        [Line(name, [(count, results[f"{name}_{count}_us"]) for count in _SIZES]) for name in _DRAWN],
        powers=True,
    ).svg()


def _nodes(count: int, *, weighted: bool) -> list[_Node]:
    table = StatsTable(time.monotonic)
    endpoints = (
        Endpoint(
            key=f"bench/{n}",
            address=f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}:50051",
            weight=1.0 + n % 5 if weighted else 1.0,
        )
        for n in range(count)
    )
    return [_Node(endpoint, table.enter(endpoint)) for endpoint in endpoints]


def _one(balancer: Balancer, picker: Picker[_Node]) -> Callable[[], None]:
    """One call as a channel makes it: only as dear as the policy needs."""
    pick = picker.pick
    if balancer.wants_outcomes:

        def told() -> None:
            Ticket(pick().stats, time.monotonic).finish(_OK)

        return told
    if balancer.wants_call:
        keys = itertools.cycle([f"user-{n}" for n in range(1000)])

        def keyed() -> None:
            in_flight = pick(Call(next(keys))).stats.in_flight
            in_flight.append(None)
            in_flight.pop()

        return keyed

    def plain() -> None:
        in_flight = pick().stats.in_flight
        in_flight.append(None)
        in_flight.pop()

    return plain


def _median_us(one: Callable[[], None], batches: int, calls: int) -> float:
    for _ in range(calls):
        one()
    times: list[float] = []
    gc.disable()
    try:
        for _ in range(batches):
            began = time.perf_counter()
            for _ in range(calls):
                one()
            times.append((time.perf_counter() - began) / calls)
    finally:
        gc.enable()
    return _middle(times) * 1e6


def _middle(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]
