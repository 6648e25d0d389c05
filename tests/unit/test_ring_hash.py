"""``ring_hash``: the same key to the same endpoint, and few moves."""

from __future__ import annotations

import collections
import random
from typing import Any

import pytest
from tests.support.balancing import Node, Set, balancer

from etcd_grpc.balancer.base import Call, Picker
from etcd_grpc.balancer.ring_hash import Ring

KEYS = [f"user-{number}" for number in range(100_000)]


def picker(nodes: list[Node], seed: int = 1, **settings: Any) -> Picker[Node]:
    made = balancer({"ring_hash": settings}, seed=seed).picker(nodes)
    assert made is not None
    return made


def owners(ring: Picker[Node], keys: int = len(KEYS)) -> list[str]:
    return [ring.pick(Call(key)).endpoint.key for key in KEYS[:keys]]


def names(count: int) -> list[str]:
    return [f"10.0.{n >> 8}.{n & 255}" for n in range(count)]


def moved(before: list[str], after: list[str]) -> int:
    return sum(one != other for one, other in zip(before, after, strict=True))


def test_key_stays_with_its_endpoint_on_every_client_and_in_any_order() -> None:
    nodes = Set().nodes(*names(10))
    shuffled = random.Random(1).sample(nodes, len(nodes))
    assert owners(picker(nodes, seed=1)) == owners(picker(shuffled, seed=2))


@pytest.mark.parametrize("count", [2, 3, 5, 9, 10, 17, 33, 100, 200])
def test_departure_of_one_of_n_moves_at_most_a_fifth_more_than_its_share(count: int) -> None:
    nodes = Set().nodes(*names(count))
    before = owners(picker(nodes))
    gone = nodes[count // 2]
    after = owners(picker([node for node in nodes if node is not gone]))
    assert moved(before, after) <= 1.2 * len(KEYS) / count
    assert moved(before, after) == before.count(gone.endpoint.key)  # nobody else's keys moved


def test_arrival_of_an_endpoint_moves_keys_only_to_it() -> None:
    nodes = Set().nodes(*names(11))
    before, after = owners(picker(nodes[:10])), owners(picker(nodes))
    assert {new for old, new in zip(before, after, strict=True) if old != new} == {names(11)[10]}


def test_shares_follow_weights() -> None:
    ring = picker(Set().weighted({"a": 1, "b": 2, "c": 5}))
    found = collections.Counter(owners(ring))
    for name, weight in (("a", 1), ("b", 2), ("c", 5)):
        assert found[name] / len(KEYS) == pytest.approx(weight / 8, rel=0.15)


def test_ring_that_was_updated_is_the_same_as_one_made_anew() -> None:
    kept = balancer("ring_hash")
    made = Set()
    rng = random.Random(1)
    for _ in range(30):
        nodes = [
            made.node(n, weight=rng.choice([0.5, 1, 2]))
            for n in rng.sample(names(12), rng.randint(1, 12))
        ]
        updated = kept.picker(nodes)
        assert updated is not None
        assert owners(updated, 500) == owners(picker(nodes), 500)


def test_old_picker_stays_whole_while_the_ring_changes() -> None:
    kept = balancer("ring_hash")
    made = Set()
    nodes = made.nodes(*names(10))
    old = kept.picker(nodes)
    assert old is not None
    before = owners(old, 500)
    for count in (5, 1, 10, 3):
        kept.picker(nodes[:count])
        assert owners(old, 500) == before


def test_ring_is_not_touched_when_the_set_is_the_same() -> None:
    ring = Ring()
    ring.update({"a:1": 10, "b:1": 10})
    points = ring.points
    ring.update({"b:1": 10, "a:1": 10})
    assert ring.points is points


def test_points_that_are_gone_are_forgotten_in_the_end() -> None:
    ring = Ring()
    for number in range(100):
        ring.update({f"{number}:1": 100})
    assert len(ring.points) == 100
    assert len(ring.owners) <= 200


@pytest.mark.parametrize(("count", "most"), [(1, 4096), (300, 131_072), (2000, 131_072)])
def test_ring_keeps_to_its_sizes(count: int, most: int) -> None:
    ring: Any = picker(Set().nodes(*names(count)))
    assert 1024 <= len(ring._points) <= most


def test_configured_sizes_are_heeded() -> None:
    ring: Any = picker(Set().nodes(*names(10)), minRingSize=10, maxRingSize=100)
    assert len(ring._points) <= 100


def test_tried_endpoints_are_passed_over_and_the_next_on_the_ring_is_taken() -> None:
    nodes = Set().nodes(*names(5))
    ring = picker(nodes)
    tried: list[Node] = []
    for _ in nodes:
        tried.append(ring.pick(Call("user-1", skip=tuple(tried))))
    assert set(tried) == set(nodes)
    assert ring.pick(Call("user-1", skip=tuple(tried))) is tried[0]
    left = [node for node in nodes if node is not tried[0]]
    assert picker(left).pick(Call("user-1")) is tried[1]  # the same as if the first were not there


def test_key_of_the_call_wins_over_the_header() -> None:
    ring = picker(Set().nodes(*names(50)), requestHashHeader="x-user")
    header = (("x-user", "user-1"),)
    by_header = ring.pick(Call(metadata=header))
    assert by_header is ring.pick(Call("user-1")) is ring.pick(Call(metadata=(("x-user", b"user-1"),)))
    assert ring.pick(Call("user-2", metadata=header)) is ring.pick(Call("user-2"))


def test_values_of_a_header_given_twice_are_joined() -> None:
    ring = picker(Set().nodes(*names(50)), requestHashHeader="x-user")
    both = ring.pick(Call(metadata=(("x-user", "a"), ("other", "c"), ("x-user", "b"))))
    assert both is ring.pick(Call("a,b"))


@pytest.mark.parametrize("call", [None, Call(), Call(metadata=(("other", "x"),))])
def test_call_without_key_goes_anywhere(call: Call | None) -> None:
    nodes = Set().nodes(*names(4))
    ring = picker(nodes, requestHashHeader="x-user")
    assert {ring.pick(call) for _ in range(200)} == set(nodes)
