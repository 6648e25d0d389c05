"""``pick_first``: one endpoint for as long as it is there."""

from __future__ import annotations

from tests.support.balancing import Set, balancer, picks


def test_all_calls_go_to_the_first() -> None:
    assert picks(balancer("pick_first").picker(Set().nodes("a", "b", "c")), 5) == ["a"] * 5


def test_it_stays_where_it_is_when_others_come_and_go() -> None:
    chosen, made = balancer("pick_first"), Set()
    assert picks(chosen.picker(made.nodes("b", "c")), 1) == ["b"]
    assert picks(chosen.picker(made.nodes("a", "b")), 1) == ["b"]


def test_it_moves_on_when_its_endpoint_leaves_and_does_not_come_back() -> None:
    chosen, made = balancer("pick_first"), Set()
    for names, expected in (("abc", "a"), ("bc", "b"), ("abc", "b")):
        assert picks(chosen.picker(made.nodes(*names)), 2) == [expected] * 2


def test_shuffled_clients_begin_at_different_endpoints() -> None:
    nodes = Set().nodes("a", "b", "c")
    shuffled = {"pick_first": {"shuffleAddressList": True}}
    first = {picks(balancer(shuffled, seed=seed).picker(nodes), 1)[0] for seed in range(30)}
    assert first == {"a", "b", "c"}
