"""``round_robin`` is exact: over any run of calls the shares differ by at most one."""

from __future__ import annotations

import collections
import sys
import threading
from collections.abc import Iterator, Sequence

import pytest
from tests.support.balancing import Node, Set, balancer, picks, spread

from etcd_grpc.balancer.base import Picker


@pytest.fixture
def _eager_thread_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


class RoundRobin:
    """The policy over endpoints that are only names."""

    def __init__(self, seed: int = 1) -> None:
        self._set = Set()
        self._balancer = balancer("round_robin", seed=seed)

    def picker(self, names: Sequence[str]) -> Picker[Node]:
        made = self._balancer.picker(self._set.nodes(*names))
        assert made is not None
        return made


def test_members_come_one_after_the_other() -> None:
    first, second, third, *rest = picks(RoundRobin().picker("abc"), 9)
    assert {first, second, third} == set("abc")
    assert rest == [first, second, third] * 2


def test_single_member_gets_every_call() -> None:
    assert picks(RoundRobin().picker(["a"]), 5) == ["a"] * 5


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("calls", [1, 99, 1000])
def test_shares_are_exact_to_one_call(size: int, calls: int) -> None:
    members = [f"m{number}" for number in range(size)]
    assert spread(picks(RoundRobin().picker(members), calls), members) <= 1


def test_shares_stay_exact_while_the_set_changes() -> None:
    made = RoundRobin()
    for members in ("abc", "abcd", "bcd", "d", "abcdefg", "ab"):
        assert spread(picks(made.picker(members), 1001), members) <= 1


def test_same_set_published_again_continues_where_it_was() -> None:
    made = RoundRobin()
    picked = [made.picker("abc").pick().endpoint.key for _ in range(300)]
    assert spread(picked, "abc") == 0
    assert picked == picked[:3] * 100


def test_old_picker_and_new_one_share_their_position() -> None:
    """A call that read the picker just before it was replaced takes its turn like the others."""
    made = RoundRobin()
    old, new = made.picker("abc"), made.picker("abc")
    picked = [picker.pick().endpoint.key for _ in range(150) for picker in (old, new)]
    assert spread(picked, "abc") == 0


def test_picker_does_not_see_later_changes_of_the_list_it_was_made_of() -> None:
    nodes = Set().nodes("a", "b", "c")
    members = nodes[:2]
    picker = balancer("round_robin").picker(members)
    assert picker is not None
    members.append(nodes[2])
    assert len(picker) == 2
    assert set(picks(picker, 10)) == {"a", "b"}


def test_weights_do_not_matter_but_weight_0_gets_no_call() -> None:
    picker = balancer("round_robin").picker(Set().weighted({"a": 1, "b": 9, "c": 0}))
    assert spread(picks(picker, 100), "ab") == 0


def test_clients_that_start_together_start_at_different_members() -> None:
    first = [RoundRobin(seed).picker("abcde").pick().endpoint.key for seed in range(500)]
    assert min(collections.Counter(first)[member] for member in "abcde") > 50


@pytest.mark.usefixtures("_eager_thread_switches")
def test_shares_are_exact_from_eight_threads_and_over_changes_of_the_set() -> None:
    made = RoundRobin()
    threads, rounds = 8, 500
    sets = ["abc", "abcd", "ab"]
    barrier = threading.Barrier(threads, timeout=30)
    picked: list[list[list[str]]] = [[] for _ in range(threads)]
    pickers = [made.picker(members) for members in sets]

    def run(mine: list[list[str]]) -> None:
        for picker in pickers:
            barrier.wait()  # all threads change to the next set together
            mine.append(picks(picker, rounds))

    workers = [threading.Thread(target=run, args=(mine,)) for mine in picked]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=30)
    for number, members in enumerate(sets):
        together = [choice for mine in picked for choice in mine[number]]
        assert len(together) == threads * rounds
        assert spread(together, members) <= 1
