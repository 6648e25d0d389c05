"""``slow_start``: Envoy's ramp, whose age survives updates."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.balancing import Set, balancer, shares

from etcd_grpc.balancer.policies import parse_policy


@pytest.mark.parametrize(
    ("settings", "age_s", "factor"),
    [
        ({}, 0, 0.1),
        ({}, -5, 0.1),
        ({}, 3, 0.1),
        ({}, 15, 0.5),
        ({}, 30, 1.0),
        ({}, 1e6, 1.0),
        ({"aggression": 2}, 7.5, 0.5),
        ({"window": "10s", "minWeightPercent": 50}, 2, 0.5),
    ],
)
def test_factor_is_envoys(settings: dict[str, Any], age_s: float, factor: float) -> None:
    policy: Any = balancer({"slow_start": settings})._policy
    assert policy.factor(age_s) == pytest.approx(factor)


@pytest.mark.parametrize("child", ["weighted_round_robin", "random", "least_request"])
def test_new_endpoint_gets_its_share_by_and_by(child: str) -> None:
    made = Set()
    old = made.nodes("a", "b")
    made.clock.now += 100
    nodes = [*old, made.node("new")]
    chosen = balancer({"slow_start": {"childPolicy": [{child: {}}]}}, made.clock)
    for age_s, factor in ((0, 0.1), (15, 0.5), (30, 1.0)):
        made.clock.now = nodes[2].stats.since_s + age_s
        found = shares(chosen.picker(nodes), 40_000)
        assert found["new"] == pytest.approx(factor / (2 + factor), abs=0.015)


def test_ramp_goes_on_over_updates_of_the_set() -> None:
    made = Set()
    made.nodes("a")
    made.clock.now += 100
    made.node("new")
    made.clock.now += 15
    found = shares(
        balancer("slow_start", made.clock).picker([*made.nodes("a", "new", weight=4)]), 30_000
    )
    assert found["new"] == pytest.approx(1 / 3, rel=0.01)


def test_endpoints_seen_together_share_evenly_at_once() -> None:
    made = Set()
    found = shares(balancer("slow_start", made.clock).picker(made.nodes("a", "b")), 1000)
    assert found["a"] == 0.5


def test_it_ticks_only_while_an_endpoint_ramps() -> None:
    made = Set()
    nodes = made.nodes("a", "b")
    chosen: Any = balancer({"slow_start": {"childPolicy": [{"random": {}}]}}, made.clock)
    assert chosen.next_tick() is None
    chosen.picker(nodes)
    assert chosen.next_tick() == made.clock.now + 1.0  # 30 steps in 30 s
    assert not chosen.tick()
    ticks = 0
    while (due := chosen.next_tick()) is not None:
        made.clock.now = due
        assert chosen.tick()
        chosen.picker(nodes)
        ticks += 1
    assert ticks == 30


def test_default_child_heeds_weights() -> None:
    assert str(parse_policy("slow_start")) == "slow_start > weighted_round_robin"
