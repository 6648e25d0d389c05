"""The maths of policies: shares, moves, bounds, for any weights, keys and outcomes."""

from __future__ import annotations

import collections
import itertools
import math
import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.balancing import Clock, Set, balancer, endpoint, picks

from etcd_grpc.balancer.base import Call
from etcd_grpc.balancer.chance import drawer
from etcd_grpc.balancer.load import Average, Stats
from etcd_grpc.balancer.ring_hash import Ring
from etcd_grpc.balancer.turns import WeightedTurns
from etcd_grpc.balancer.zone_aware import shares

seeds = st.integers(0, 2**32)
weights = st.floats(1e-3, 1e3)
weight_lists = st.lists(weights, min_size=1, max_size=20)
names = st.lists(st.integers(0, 999).map("h{}".format), min_size=1, max_size=12, unique=True)


@given(weight_lists, st.integers(0, 2**70), st.integers(1, 1000))
def test_turns_by_weight_are_never_off_by_more_than_a_few(
    given_weights: list[float], start: int, count: int
) -> None:
    """An interval of the golden-ratio sequence is hit N·s times, but for about 2 + log N."""
    turns = WeightedTurns(range(len(given_weights)), given_weights, itertools.count(start))
    found = collections.Counter(turns.pick() for _ in range(count))
    total = sum(given_weights)
    for member, weight in enumerate(given_weights):
        assert abs(found[member] - count * weight / total) <= 2 + math.log2(count + 1)


@given(weight_lists, st.floats(0, 1, exclude_max=True))
def test_a_draw_is_always_a_member(given_weights: list[float], point: float) -> None:
    assert drawer(range(len(given_weights)), given_weights, lambda: point)() in range(
        len(given_weights)
    )


counts = st.dictionaries(st.integers(0, 9).map("h{}:1".format), st.integers(1, 30), max_size=8)


@settings(max_examples=60)
@given(st.lists(counts, min_size=1, max_size=6))
def test_ring_is_a_function_of_the_set_and_not_of_its_past(history: list[dict[str, int]]) -> None:
    ring, fresh = Ring(), Ring()
    for wanted in history:
        ring.update(wanted)
    fresh.update(history[-1])
    assert ring.points == fresh.points == sorted(set(ring.points))
    assert [ring.owners[point] for point in ring.points] == [fresh.owners[p] for p in fresh.points]
    assert collections.Counter(ring.owners[p] for p in ring.points) == history[-1]


@settings(max_examples=50)
@given(names, st.data())
def test_keys_of_endpoints_that_stay_do_not_move(members: list[str], data: st.DataObject) -> None:
    made = Set()
    gone = data.draw(st.sampled_from(members))
    before = balancer("ring_hash").picker(made.nodes(*members))
    after = balancer("ring_hash").picker(made.nodes(*(m for m in members if m != gone)))
    if before is None or after is None:
        assert len(members) == 1
        return
    for number in range(200):
        owner = before.pick(Call(str(number))).endpoint.key
        if owner != gone and len(members) > 2:
            assert after.pick(Call(str(number))).endpoint.key == owner


@given(names, st.integers(1, 15), seeds, st.data())
def test_subset_changes_at_most_one_place_when_one_endpoint_leaves(
    members: list[str], size: int, seed: int, data: st.DataObject
) -> None:
    gone = data.draw(st.sampled_from(members))
    config: Any = {"subset": {"subsetSize": size}}

    def chosen(present: list[str]) -> set[str]:
        made = balancer(config, Clock(), seed).select([endpoint(name) for name in present])
        return {found.key for found in made}

    before, after = chosen(members), chosen([name for name in members if name != gone])
    assert before - after <= {gone}
    assert len(after - before) <= 1
    assert len(before) == min(size, len(members))


@given(st.dictionaries(st.sampled_from("abcdef"), weights, min_size=1), st.floats(0.01, 1), st.data())
def test_shares_of_zones_add_up_and_home_comes_first(
    capacity: dict[str, float], caller_share: float, data: st.DataObject
) -> None:
    home = data.draw(st.sampled_from(sorted(capacity)))
    for told in (None, caller_share):
        found = shares(capacity, home, told)
        assert math.isclose(sum(found.values()), 1, rel_tol=1e-9)
        assert all(0 <= share <= 1 + 1e-9 for share in found.values())
        mine = 1 / len(capacity) if told is None else told
        if capacity[home] / sum(capacity.values()) >= mine:
            assert found[home] == 1


outcomes = st.tuples(st.sampled_from([True, False, None]), st.floats(0, 100), st.floats(0, 60))


@given(st.lists(outcomes, max_size=60), st.floats(0, 1000))
def test_cost_is_always_between_the_fastest_and_the_slowest_call(
    course: list[tuple[bool | None, float, float]], later_s: float
) -> None:
    stats, now = Stats(Average(), 0.0), 0.0
    for ok, rtt_s, pause_s in course:
        now += pause_s
        stats.observe(ok, rtt_s, now)
    rtts = [rtt_s for _, rtt_s, _ in course] or [0.0]
    slack = 1e-9 * (1 + max(rtts))
    assert min(0.0, *rtts) - slack <= stats.cost_s(now + later_s) <= max(rtts) + slack
    assert stats.successes + stats.failures == sum(ok is not None for ok, _, _ in course)


@settings(max_examples=50)
@given(seeds, st.lists(st.integers(0, 3).map(float), min_size=1, max_size=8), st.data())
def test_weight_0_gets_no_call_by_any_policy(
    seed: int, given_weights: list[float], data: st.DataObject
) -> None:
    leaf = data.draw(
        st.sampled_from(["round_robin", "weighted_round_robin", "least_request", "random"])
    )
    wrapper = data.draw(st.sampled_from(["outlier_detection", "slow_start", None]))
    if wrapper == "slow_start" and leaf == "round_robin":
        leaf = "random"
    config: Any = {wrapper: {"childPolicy": [{leaf: {}}]}} if wrapper else leaf
    nodes = Set().weighted({f"e{n}": weight for n, weight in enumerate(given_weights)})
    picker = balancer(config, seed=seed).picker(nodes)
    if not any(given_weights):
        assert picker is None
        return
    assert all(given_weights[int(name[1:])] > 0 for name in picks(picker, 300))


@settings(max_examples=50)
@given(seeds, st.integers(1, 12), st.lists(st.tuples(st.integers(0, 11), st.booleans()), max_size=150))
def test_outlier_detection_never_ejects_more_than_it_may_and_always_leaves_an_endpoint(
    seed: int, count: int, course: list[tuple[int, bool]]
) -> None:
    made, rng = Set(), random.Random(seed)
    nodes = made.nodes(*(f"e{n}" for n in range(count)))
    policy = balancer({"outlier_detection": {"consecutiveFailures": 2}}, made.clock, seed)
    picker = policy.picker(nodes)
    for number, ok in course:
        made.clock.now += rng.random() * 3
        stats = nodes[number % count].stats
        if stats.observe(ok, 0.01, made.clock.now) and policy.tick():
            picker = policy.picker(nodes)
        out = [node for node in nodes if node.stats.ejection is not None]
        assert len(out) <= max(1, count // 10)
        assert picker is not None
        assert picker.pick() in nodes
        due = policy.next_tick()
        assert due is not None
        if due <= made.clock.now and policy.tick():
            picker = policy.picker(nodes)
