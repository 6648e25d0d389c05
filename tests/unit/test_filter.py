"""``filter`` and ``canary``: endpoints by version, zone and metadata."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.balancing import Set, balancer, endpoint, picks, shares

from etcd_grpc.balancer.match import Match


@pytest.mark.parametrize(
    ("match", "fields", "meets"),
    [
        ({"version": "v2"}, {"version": "v2"}, True),
        ({"version": "v2"}, {"version": "v1"}, False),
        ({"version": "v2"}, {}, False),
        ({"version": "v2", "zone": "a"}, {"version": "v2", "zone": "a"}, True),
        ({"version": "v2", "zone": "a"}, {"version": "v2", "zone": "b"}, False),
        ({"metadata": {"shard": 3}}, {"metadata": {"shard": 3, "x": 1}}, True),
        ({"metadata": {"shard": "3"}}, {"metadata": {"shard": 3}}, True),
        ({"metadata": {"shard": "3"}}, {"metadata": {}}, False),
        ({"metadata": {"gpu": "true"}}, {"metadata": {"gpu": True}}, True),
        ({"metadata": {"gpu": True}}, {"metadata": {"gpu": "true"}}, True),
        ({"metadata": {"x": "None"}}, {"metadata": {"x": None}}, False),
    ],
)
def test_match(match: dict[str, Any], fields: dict[str, Any], meets: bool) -> None:
    assert Match(**match)(endpoint("e", **fields)) is meets


def test_query_of_a_target_is_a_match() -> None:
    assert Match.of({"version": "v2", "shard": "3"}) == Match("v2", "", {"shard": "3"})
    with pytest.raises(ValueError, match="version, zone or metadata"):
        Match.of({})


def versions(made: Set, **numbers: int) -> list[Any]:
    return [made.node(f"{v}-{n}", version=v) for v, count in numbers.items() for n in range(count)]


def test_only_endpoints_that_match_get_calls() -> None:
    made = Set()
    policy = balancer({"filter": {"match": {"version": "v2"}}})
    nodes = versions(made, v1=3, v2=2)
    assert set(picks(policy.picker(nodes), 100)) == {"v2-0", "v2-1"}
    assert {e.key for e in policy.select([n.endpoint for n in nodes])} == {"v2-0", "v2-1"}


def test_without_a_match_no_call_is_sent_unless_there_is_a_fallback() -> None:
    nodes = versions(Set(), v1=2)
    assert balancer({"filter": {"match": {"version": "v2"}}}).picker(nodes) is None
    fallback = balancer({"filter": {"match": {"version": "v2"}, "fallback": True}})
    assert set(picks(fallback.picker(nodes), 10)) == {"v1-0", "v1-1"}
    assert len(fallback.select([n.endpoint for n in nodes])) == 2


def canary(percent: float, child: str = "round_robin") -> dict[str, Any]:
    settings = {"match": {"version": "v2"}, "percent": percent, "childPolicy": [{child: {}}]}
    return {"canary": settings}


@pytest.mark.parametrize("percent", [1, 5, 50, 99.5])
@pytest.mark.parametrize("numbers", [{"v1": 9, "v2": 1}, {"v1": 1, "v2": 9}])
def test_canaries_get_their_percentage_however_many_there_are(
    percent: float, numbers: dict[str, int]
) -> None:
    found = shares(balancer(canary(percent)).picker(versions(Set(), **numbers)), 10_000)
    canaries = sum(share for name, share in found.items() if name.startswith("v2"))
    assert canaries == pytest.approx(percent / 100, abs=0.001)


def test_each_kind_shares_its_calls_exactly() -> None:
    found = shares(balancer(canary(50)).picker(versions(Set(), v1=4, v2=2)), 8000)
    assert found["v1-0"] == pytest.approx(0.125, abs=0.001)
    assert found["v2-0"] == pytest.approx(0.25, abs=0.001)


@pytest.mark.parametrize(("percent", "kind"), [(0, "v1"), (100, "v2")])
def test_nothing_and_all_are_exact(percent: float, kind: str) -> None:
    picked = picks(balancer(canary(percent)).picker(versions(Set(), v1=2, v2=2)), 10_000)
    assert {name[:2] for name in picked} == {kind}


def test_missing_kind_leaves_all_calls_to_the_other() -> None:
    for kind in ("v1", "v2"):
        picked = picks(balancer(canary(5)).picker(versions(Set(), **{kind: 2})), 100)
        assert {name[:2] for name in picked} == {kind}


def test_percentage_of_nothing_stays_nothing() -> None:
    assert balancer(canary(0)).picker(versions(Set(), v2=2)) is None


def test_positions_outlive_updates() -> None:
    made = Set()
    policy = balancer(canary(20))
    nodes = versions(made, v1=2, v2=1)
    picked = [name for _ in range(1000) for name in picks(policy.picker(nodes), 1)]
    assert picked.count("v2-0") == pytest.approx(200, abs=3)
    assert picked.count("v1-0") == pytest.approx(400, abs=3)
