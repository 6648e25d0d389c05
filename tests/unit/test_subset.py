"""``subset``: each client uses few endpoints, and changes few of them."""

from __future__ import annotations

import collections

from tests.support.balancing import Clock, Set, balancer, endpoint, picks


def subset(size: int) -> dict[str, object]:
    return {"subset": {"subsetSize": size}}


def chosen(names: list[str], size: int, seed: int) -> set[str]:
    made = balancer(subset(size), Clock(), seed).select([endpoint(name) for name in names])
    return {found.key for found in made}


NAMES = [f"e{number}" for number in range(100)]


def test_only_so_many_are_used() -> None:
    made = Set()
    policy = balancer(subset(5))
    picker = policy.picker(made.nodes(*NAMES))
    assert picker is not None
    assert len(picker) == 5
    assert len(set(picks(picker, 100))) == 5


def test_picker_and_selection_agree() -> None:
    made = Set()
    policy = balancer(subset(7))
    nodes = made.nodes(*NAMES)
    selected = {e.key for e in policy.select([node.endpoint for node in nodes])}
    assert set(picks(policy.picker(nodes), 100)) == selected


def test_small_sets_are_used_whole() -> None:
    assert set(picks(balancer(subset(5)).picker(Set().nodes("a", "b")), 10)) == {"a", "b"}


def test_one_change_of_the_set_moves_at_most_one_place_and_two_nths_on_average() -> None:
    size, clients = 20, 200
    moved = 0
    for seed in range(clients):
        before, after = chosen(NAMES, size, seed), chosen(NAMES[:50] + NAMES[51:], size, seed)
        assert len(before - after) == len(after - before) <= 1
        assert (NAMES[50] in before) == (before != after)
        moved += len(before - after)
    assert moved / (size * clients) <= 2 / len(NAMES)


def test_clients_choose_differently_and_load_endpoints_evenly() -> None:
    clients, size = 1000, 20
    found = collections.Counter(key for seed in range(clients) for key in chosen(NAMES, size, seed))
    mean = clients * size / len(NAMES)
    assert set(found) == set(NAMES)
    assert max(found.values()) < mean * 1.3
    assert min(found.values()) > mean * 0.7
