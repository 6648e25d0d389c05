"""``weighted_round_robin``: turns by registered weights, and by load reports when there are any."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from tests.support.balancing import Set, balancer, picks, shares, spread

from etcd_grpc.balancer.turns import WeightedTurns


def wrr(made: Set, **settings: Any) -> Any:
    return balancer({"weighted_round_robin": settings}, made.clock)


def tell(made: Set, utilization: dict[str, float], qps: float = 100.0, eps: float = 0.0) -> None:
    """A first report, and one 11 s later, when the blackout is over."""
    for _ in range(2):
        for name, used in utilization.items():
            made.node(name).stats.tell(used, qps, eps, made.clock.now)
        made.clock.now += 11


@pytest.mark.parametrize(
    "weights",
    [
        {"a": 1, "b": 2, "c": 3},
        {"a": 5, "b": 1, "c": 1, "d": 1},
        {"a": 0.5, "b": 1, "c": 100},
        {f"e{n}": 1 + n % 7 for n in range(50)},
    ],
)
def test_shares_are_within_one_percent_of_weights_over_100000_picks(weights: dict[str, float]) -> None:
    found = shares(balancer("weighted_round_robin").picker(Set().weighted(weights)), 100_000)
    total = sum(weights.values())
    for name, weight in weights.items():
        assert found[name] == pytest.approx(weight / total, rel=0.01)


def test_turns_of_one_member_are_evenly_spaced() -> None:
    nodes = Set().weighted({"a": 1, "b": 3, "c": 6})
    picked = picks(balancer("weighted_round_robin").picker(nodes), 5000)
    turns = [position for position, name in enumerate(picked) if name == "a"]
    gaps = {later - earlier for earlier, later in itertools.pairwise(turns)}
    assert len(gaps) <= 3  # Steinhaus
    assert min(gaps) >= 5
    assert max(gaps) <= 18


def test_equal_weights_are_round_robin_to_one_call() -> None:
    picked = picks(balancer("weighted_round_robin").picker(Set().nodes("a", "b", "c")), 1000)
    assert spread(picked, "abc") <= 1


def test_turns_go_on_over_updates() -> None:
    made = Set()
    chosen = wrr(made)
    nodes = made.weighted({"a": 1, "b": 3})
    picked = [name for _ in range(400) for name in picks(chosen.picker(nodes), 1)]
    assert picked.count("a") == pytest.approx(100, abs=3)


def test_extreme_weights_never_pass_the_last_member() -> None:
    rng = random.Random(1)
    for _ in range(200):
        weights = [10 ** rng.uniform(-300, 6) for _ in range(rng.randint(1, 40))]
        turns = WeightedTurns(range(len(weights)), weights, iter(range(1 << 70, (1 << 70) + 100)))
        assert all(turns.pick() < len(weights) for _ in range(100))


# Load reports.


def test_reported_weights_are_used_after_the_blackout() -> None:
    made = Set()
    nodes = made.nodes("a", "b")
    chosen = wrr(made)
    chosen.picker(nodes)
    for name, used in (("a", 0.25), ("b", 0.75)):
        made.node(name).stats.tell(used, 100, 0, made.clock.now)
    made.clock.now += 9.9
    assert not chosen.tick()
    made.clock.now += 1.1
    assert chosen.tick()
    assert shares(chosen.picker(nodes), 10_000)["a"] == pytest.approx(0.75, rel=0.01)


def test_errors_lower_the_weight() -> None:
    made = Set()
    nodes = made.nodes("a", "b")
    tell(made, {"a": 0.5, "b": 0.5})
    made.node("b").stats.tell(0.5, 100, 50, made.clock.now)  # 100 / (0.5 + 0.5) = half
    assert shares(wrr(made).picker(nodes), 9_000)["b"] == pytest.approx(1 / 3, rel=0.01)
    free = wrr(made, errorUtilizationPenalty=0)
    assert shares(free.picker(nodes), 9_000)["b"] == pytest.approx(1 / 2, rel=0.01)


def test_endpoint_without_report_gets_the_mean() -> None:
    made = Set()
    tell(made, {"a": 0.25, "b": 0.75})  # 400 and 133, mean 267
    found = shares(wrr(made).picker(made.nodes("a", "b", "c")), 30_000)
    assert found["c"] == pytest.approx(1 / 3, rel=0.01)
    assert found["a"] == pytest.approx(0.5, rel=0.01)


def test_fewer_than_two_reports_leave_the_registered_weights() -> None:
    made = Set()
    tell(made, {"a": 0.01})
    assert spread(picks(wrr(made).picker(made.nodes("a", "b", "c")), 900), "abc") == 0
    found = shares(wrr(made).picker(made.weighted({"a": 1, "b": 3})), 10_000)
    assert found["b"] == pytest.approx(0.75, rel=0.01)


def test_old_reports_expire() -> None:
    made = Set()
    nodes = made.nodes("a", "b")
    tell(made, {"a": 0.25, "b": 0.75})
    chosen = wrr(made)
    assert shares(chosen.picker(nodes), 1000)["a"] > 0.7
    made.clock.now += 180
    assert chosen.tick()
    assert spread(picks(chosen.picker(nodes), 900), "ab") == 0


def test_reports_survive_an_update_of_the_set() -> None:
    made = Set()
    tell(made, {"a": 0.25, "b": 0.75})
    chosen = wrr(made)
    chosen.picker(made.nodes("a", "b"))
    found = shares(chosen.picker([*made.nodes("a", "b"), made.node("c")]), 30_000)
    assert found["a"] / found["b"] == pytest.approx(3, rel=0.02)


def test_blackout_begins_anew_with_a_new_connection() -> None:
    made = Set()
    nodes = made.nodes("a", "b")
    tell(made, {"a": 0.25, "b": 0.75})
    nodes[0].stats.connect()
    nodes[0].stats.tell(0.25, 100, 0, made.clock.now)
    assert spread(picks(wrr(made).picker(nodes), 900), "ab") == 0


def test_weights_are_computed_at_the_update_period_but_never_more_often_than_every_100_ms() -> None:
    for period, expected in (("1s", 1.0), ("5s", 5.0), ("0s", 0.1)):
        made = Set()
        assert wrr(made, weightUpdatePeriod=period).next_tick() == made.clock.now + expected


def test_ramp_of_a_wrapper_applies_to_reported_weights() -> None:
    made = Set()
    tell(made, {"a": 0.5, "b": 0.5})
    made.clock.now += 60
    for name in "ab":
        made.node(name).stats.tell(0.5, 100, 0, made.clock.now)
    fresh = made.node("c")
    assert fresh.stats.since_s == made.clock.now
    chosen = balancer("slow_start", made.clock)
    found = shares(chosen.picker([*made.nodes("a", "b"), fresh]), 21_000)
    assert found["c"] == pytest.approx(0.1 / 2.1, rel=0.02)
