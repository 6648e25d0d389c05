"""``zone_aware``: calls stay at home as far as home has capacity."""

from __future__ import annotations

import random
from typing import Any

import pytest
from tests.support.balancing import Clock, Node, Set, balancer, shares

from etcd_grpc.balancer.balancer import Balancer
from etcd_grpc.balancer.policies import parse_policy
from etcd_grpc.balancer.zone_aware import shares as zone_shares


def test_the_zone_is_the_channels_where_none_is_configured() -> None:
    numbers = {"a": 2, "b": 2}
    config = parse_policy({"zone_aware": {}})
    for zone, expected in (("a", {"a": 1.0}), ("", {"a": 0.5, "b": 0.5}), ("c", {"a": 0.5, "b": 0.5})):
        made = Balancer(config, random.Random(1), Clock(), zone)
        assert by_zone(made.picker(zones(Set(), **numbers))) == expected


def zones(made: Set, weight: float = 1.0, **numbers: int) -> list[Node]:
    return [
        made.node(f"{zone}{n}", zone=zone, weight=weight)
        for zone, count in numbers.items()
        for n in range(count)
    ]


def by_zone(picker: Any, count: int = 12_000) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, share in shares(picker, count).items():
        found[name[0]] = found.get(name[0], 0) + share
    return found


def policy(**settings: Any) -> Any:
    return balancer({"zone_aware": {"zone": "a"} | settings})


@pytest.mark.parametrize("numbers", [{"a": 2, "b": 2}, {"a": 5, "b": 2, "c": 1}, {"a": 1}])
def test_calls_stay_home_while_it_has_its_part_of_the_capacity(numbers: dict[str, int]) -> None:
    assert by_zone(policy().picker(zones(Set(), **numbers))) == {"a": 1.0}


def test_home_short_of_capacity_spills_over_in_proportion() -> None:
    # Three zones with a third of the callers each; home has a sixth of the capacity.
    found = by_zone(policy().picker(zones(Set(), a=2, b=4, c=6)))
    assert found["a"] == pytest.approx(1 / 2, abs=0.002)
    assert found["c"] == pytest.approx(1 / 2, abs=0.002)  # b has nothing to spare
    found = by_zone(policy().picker(zones(Set(), a=2, b=5, c=5)))
    assert found["b"] == pytest.approx(1 / 4, abs=0.002)
    assert found["c"] == pytest.approx(1 / 4, abs=0.002)


def test_every_endpoint_gets_the_same_load_when_all_zones_do_it() -> None:
    capacity = {"a": 2.0, "b": 4.0, "c": 6.0}
    load = dict.fromkeys(capacity, 0.0)
    for home in capacity:
        for zone, part in zone_shares(capacity, home).items():
            load[zone] += part / 3
    for zone, part in capacity.items():
        assert load[zone] == pytest.approx(part / 12)


def test_weights_are_capacity() -> None:
    made = Set()
    nodes = [*zones(made, weight=1.0, a=4), *zones(made, weight=3.0, b=4)]
    assert by_zone(policy().picker(nodes))["a"] == pytest.approx(0.5, abs=0.002)


def test_share_of_callers_can_be_told() -> None:
    found = by_zone(policy(callerShare=0.25).picker(zones(Set(), a=1, b=3)))
    assert found == {"a": 1.0}
    found = by_zone(policy(callerShare=1.0).picker(zones(Set(), a=1, b=3)))
    assert found["a"] == pytest.approx(0.25, abs=0.002)


def test_without_home_all_are_used_alike() -> None:
    found = shares(policy().picker(zones(Set(), b=1, c=3)), 4000)
    assert all(share == 0.25 for share in found.values())


def test_home_is_used_again_when_it_comes_back() -> None:
    made = Set()
    chosen = policy()
    for numbers, expected in (({"a": 1, "b": 1}, {"a"}), ({"b": 1}, {"b"}), ({"a": 1, "b": 1}, {"a"})):
        assert (
            set(
                by_zone(
                    chosen.picker(zones(made, **numbers)),
                )
            )
            == expected
        )


def test_endpoints_without_a_zone_are_a_zone_of_their_own() -> None:
    made = Set()
    nodes = [*zones(made, a=1), made.node("?", zone="")]
    assert by_zone(policy().picker(nodes)) == {"a": 1.0}


def test_each_zone_shares_its_calls_exactly() -> None:
    found = shares(policy().picker(zones(Set(), a=2, b=6)), 12_000)
    assert found["a0"] == pytest.approx(found["a1"], abs=0.001)
    assert found["b0"] == pytest.approx(found["b5"], abs=0.001)


def test_its_children_are_driven_in_time() -> None:
    chosen = policy(childPolicy=[{"slow_start": {}}])
    assert chosen.next_tick() is None
    chosen.picker(zones(Set(), a=1, b=3))
    assert chosen.next_tick() is not None
