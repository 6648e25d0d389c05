"""Entries folded into a set of endpoints: differences only, complaints once."""

from __future__ import annotations

import pytest

from etcd_grpc.address import AddressPolicy
from etcd_grpc.codec import Entry, NamingCodec
from etcd_grpc.directory import Directory
from etcd_grpc.guard import DisappearanceGuard
from etcd_grpc.model import Change, Endpoint, Instance, Put, Remove, Status


def fresh_directory(hold_s: float = 0.0) -> Directory:
    return Directory(NamingCodec(), AddressPolicy(), DisappearanceGuard(hold_s))


def good(name: str, revision: int, weight: float = 1.0) -> Entry:
    key, value = NamingCodec().encode(Instance("greeter", f"{name}:50051", id=name, weight=weight))
    return Entry(key, value, revision)


def bad(name: str, revision: int) -> Entry:
    return Entry(f"greeter/{name}:50051".encode(), b"{", revision)


def gone(name: str, revision: int) -> Entry:
    return Entry(f"greeter/{name}:50051".encode(), None, revision)


def endpoint(name: str, revision: int, weight: float = 1.0) -> Endpoint:
    return NamingCodec().decode(good(name, revision, weight))


def key(name: str) -> str:
    return f"greeter/{name}:50051"


def directory(*entries: Entry, revision: int = 1) -> Directory:
    made = fresh_directory()
    made.replace(entries, revision, 0.0)
    return made


def test_first_list_puts_everything_in_its_order() -> None:
    made = fresh_directory()
    folded = made.replace([good("b", 1), good("a", 2)], 2, 0.0)
    assert folded.update.changes == (Put(endpoint("b", 1)), Put(endpoint("a", 2)))
    assert (folded.update.revision, made.revision) == (2, 2)
    assert list(made.endpoints) == [key("b"), key("a")]


def test_new_directory_is_empty_and_of_no_revision() -> None:
    made = fresh_directory()
    assert (dict(made.endpoints), made.revision, made.skipped) == ({}, 0, 0)


def test_empty_list_of_an_empty_directory_changes_nothing() -> None:
    folded = fresh_directory().replace([], 9, 0.0)
    assert folded.update.changes == ()
    assert folded.update.revision == 9


@pytest.mark.parametrize(
    ("entry", "changes"),
    [
        (good("b", 5), (Put(endpoint("b", 5)),)),
        (good("a", 5, weight=2), (Put(endpoint("a", 5, weight=2)),)),
        (good("a", 1), ()),  # what we know already
        (gone("a", 5), (Remove(key("a")),)),
        (gone("b", 5), ()),  # was never there
        (bad("b", 5), ()),
        (bad("a", 5), (Remove(key("a")),)),  # an endpoint that became garbage is none
    ],
)
def test_event_yields_the_difference_it_makes(entry: Entry, changes: tuple[Change, ...]) -> None:
    made = directory(good("a", 1))
    folded = made.apply([entry], 5, 0.0)
    assert folded.update.changes == changes
    assert folded.update.revision == made.revision == 5


def test_events_are_folded_in_their_order() -> None:
    made = directory(good("a", 1))
    folded = made.apply([gone("a", 2), good("a", 3), gone("b", 4), good("b", 5), gone("b", 6)], 6, 0.0)
    assert folded.update.changes == (
        Remove(key("a")),
        Put(endpoint("a", 3)),
        Put(endpoint("b", 5)),
        Remove(key("b")),
    )
    assert dict(made.endpoints) == {key("a"): endpoint("a", 3)}


def test_endpoint_that_changes_keeps_its_place() -> None:
    made = directory(good("a", 1), good("b", 1))
    made.apply([good("a", 2, weight=3)], 2, 0.0)
    assert list(made.endpoints) == [key("a"), key("b")]


def test_replace_yields_the_difference_only() -> None:
    made = directory(good("a", 1), good("b", 1), good("c", 1))
    folded = made.replace([good("a", 1), good("c", 7, weight=2), good("d", 8)], 9, 0.0)
    assert sorted(change.key for change in folded.update.changes) == [key("b"), key("c"), key("d")]
    assert dict(made.endpoints) == {
        key("a"): endpoint("a", 1),
        key("c"): endpoint("c", 7, weight=2),
        key("d"): endpoint("d", 8),
    }


def test_replace_by_the_same_changes_nothing() -> None:
    entries = [good("a", 1), bad("x", 2), good("b", 3)]
    made = directory(*entries)
    folded = made.replace(entries, 50, 0.0)
    assert folded.update.changes == ()
    assert folded.rejected == ()
    assert made.revision == 50


def test_replace_by_nothing_removes_everything() -> None:
    made = directory(good("a", 1), good("b", 1), bad("x", 1))
    folded = made.replace([], 9, 0.0)
    assert sorted(change.key for change in folded.update.changes) == [key("a"), key("b")]
    assert all(isinstance(change, Remove) for change in folded.update.changes)
    assert not made.endpoints
    assert made.skipped == 0


def test_replace_may_go_back_in_revisions() -> None:
    made = directory(good("a", 100), revision=100)
    folded = made.replace([good("b", 3)], 3, 0.0)
    assert {change.key for change in folded.update.changes} == {key("a"), key("b")}
    assert made.revision == 3


class _SpyCodec(NamingCodec):
    """Looks at the directory in the middle of its work, as another thread can."""

    def __init__(self) -> None:
        self.directory: Directory | None = None
        self.seen: list[set[str]] = []

    def decode(self, entry: Entry) -> Endpoint:
        if self.directory is not None:
            self.seen.append(set(self.directory.endpoints))
        return super().decode(entry)


def test_live_view_is_never_empty_while_everything_is_replaced() -> None:
    codec = _SpyCodec()
    made = Directory(codec, AddressPolicy(), DisappearanceGuard())
    made.replace([good("a", 1), good("b", 1)], 1, 0.0)
    codec.directory = made
    made.replace([good("c", 5), good("d", 5)], 5, 0.0)
    assert set(made.endpoints) == {key("c"), key("d")}
    assert all(codec.seen)


# Garbage.


def test_garbage_is_skipped_and_the_others_are_served() -> None:
    made = fresh_directory()
    folded = made.replace([good("a", 1), bad("x", 2), good("b", 3)], 3, 0.0)
    assert list(made.endpoints) == [key("a"), key("b")]
    assert made.skipped == 1
    assert len(folded.rejected) == 1
    assert "x:50051" in folded.rejected[0].why


def test_complaint_comes_once_for_each_revision_of_an_entry() -> None:
    made = fresh_directory()
    assert len(made.apply([bad("x", 1)], 1, 0.0).rejected) == 1
    assert made.apply([bad("x", 1)], 2, 0.0).rejected == ()
    assert made.replace([bad("x", 1)], 3, 0.0).rejected == ()
    assert len(made.apply([bad("x", 4)], 4, 0.0).rejected) == 1
    assert made.replace([bad("x", 4)], 5, 0.0).rejected == ()
    assert made.skipped == 1


def test_complaint_comes_again_for_an_entry_that_was_gone_or_good_in_between() -> None:
    made = fresh_directory()
    made.apply([bad("x", 1), gone("x", 2)], 2, 0.0)
    assert made.skipped == 0
    assert len(made.apply([bad("x", 3)], 3, 0.0).rejected) == 1
    made.apply([good("x", 4)], 4, 0.0)
    assert made.skipped == 0
    assert len(made.apply([bad("x", 5)], 5, 0.0).rejected) == 1


def test_garbage_that_is_repaired_becomes_an_endpoint() -> None:
    made = directory(bad("a", 1))
    assert made.apply([good("a", 2)], 2, 0.0).update.changes == (Put(endpoint("a", 2)),)
    assert made.skipped == 0


def test_garbage_that_vanishes_from_a_list_is_forgotten() -> None:
    made = directory(bad("x", 1), good("a", 1))
    assert made.replace([good("a", 1)], 5, 0.0).update.changes == ()
    assert made.skipped == 0


def test_view_cannot_be_written() -> None:
    made = directory(good("a", 1))
    with pytest.raises(TypeError):
        made.endpoints[key("b")] = endpoint("b", 1)  # type: ignore[index]


def test_cost_of_an_event_is_not_that_of_the_set() -> None:
    """Counted, not timed: one event decodes one entry, however many endpoints there are."""
    codec = _SpyCodec()
    made = Directory(codec, AddressPolicy(), DisappearanceGuard())
    made.replace([good(f"h{number}", 1) for number in range(1000)], 1, 0.0)
    codec.directory = made
    made.apply([good("new", 2)], 2, 0.0)
    assert len(codec.seen) == 1


# Mass disappearance.


def held_directory(*names: str) -> Directory:
    made = fresh_directory(60.0)
    made.replace([good(name, 1) for name in names], 1, 0.0)
    return made


def draining(name: str, revision: int) -> Entry:
    instance = Instance("greeter", f"{name}:50051", id=name, status=Status.DRAINING)
    return Entry(*NamingCodec().encode(instance), revision)


def names(made: Directory) -> list[str]:
    return sorted(item.id for item in made.endpoints.values())


def test_half_that_vanishes_is_gone_and_more_than_half_is_kept() -> None:
    made = held_directory("a", "b", "c", "d")
    half = made.apply([gone("a", 2), gone("b", 3)], 3, 1.0)
    assert half.update.changes == (Remove(key("a")), Remove(key("b")))
    assert (half.held, made.held_until) == (0, None)
    most = made.apply([gone("c", 4)], 4, 2.0)
    assert most.held == 3
    assert most.update.changes == (Put(endpoint("a", 1)), Put(endpoint("b", 1)))  # c was not missed
    assert names(made) == ["a", "b", "c", "d"]
    assert made.held == {key("a"), key("b"), key("c")}
    assert made.held_until == 62.0


def test_the_only_endpoint_is_kept() -> None:
    made = held_directory("a")
    assert made.apply([gone("a", 2)], 2, 1.0).update.changes == ()
    assert names(made) == ["a"]


def test_replacing_one_after_the_other_holds_nobody() -> None:
    """As a deployment of servers does that say nothing before they leave."""
    made = held_directory("a", "b", "c")
    for number in range(30):
        new, old = f"n{number}", f"n{number - 3}" if number >= 3 else "abc"[number]
        made.apply([good(new, 2 * number + 2)], 2 * number + 2, number * 0.1)
        folded = made.apply([gone(old, 2 * number + 3)], 2 * number + 3, number * 0.1)
        assert folded.update.changes == (Remove(key(old)),)
    assert names(made) == ["n27", "n28", "n29"]


def test_those_who_take_no_calls_take_nobodys_place() -> None:
    made = fresh_directory(60.0)
    made.replace([*(good(name, 1) for name in "abc"), good("idle", 1, 0.0)], 1, 0.0)
    made.apply([gone("a", 2)], 2, 1.0)
    made.apply([good("late", 3, 0.0)], 3, 1.0)
    assert made.apply([gone("b", 4)], 4, 1.0).held == 2
    made.apply([gone("c", 5)], 5, 1.0)
    assert made.held == {key(name) for name in "abc"}


def test_those_who_take_no_calls_are_not_missed() -> None:
    made = fresh_directory(60.0)
    made.replace([good("a", 1), *(good(name, 1, 0.0) for name in ("b", "c", "d"))], 1, 0.0)
    made.apply([gone("b", 2), gone("c", 2), gone("d", 2)], 2, 1.0)
    assert made.held == set()
    assert list(made.endpoints) == [key("a")]


def test_few_who_vanish_beside_many_who_are_withdrawn_are_not_kept() -> None:
    made = held_directory(*"abcdefghij")
    made.apply([draining(name, 2) for name in "abcdef"], 2, 1.0)
    made.apply([gone(name, 3) for name in "abcdef"], 3, 1.5)
    assert made.apply([gone("g", 4), gone("h", 5)], 5, 2.0).held == 0
    assert names(made) == ["i", "j"]


def test_slow_disappearance_is_believed() -> None:
    made = held_directory("a", "b", "c", "d")
    for number, name in enumerate("abc"):
        assert made.apply([gone(name, number + 2)], number + 2, number * 10.5).held == 0
    assert names(made) == ["d"]


def test_withdrawn_endpoints_go_at_once_however_many() -> None:
    made = held_directory("a", "b", "c")
    made.apply([draining(name, 2) for name in "abc"], 2, 1.0)
    folded = made.apply([gone(name, 3) for name in "abc"], 3, 1.5)
    assert folded.update.changes == (Remove(key("a")), Remove(key("b")), Remove(key("c")))
    assert names(made) == []


def test_list_that_lacks_most_is_not_believed_either() -> None:
    made = held_directory("a", "b", "c")
    folded = made.replace([good("c", 1)], 7, 1.0)
    assert (folded.update.changes, folded.held) == ((), 2)
    assert made.held == {key("a"), key("b")}


def test_list_that_replaces_a_view_that_was_not_etcds_is_believed() -> None:
    made = fresh_directory(60.0)
    saved = [endpoint(name, 1) for name in "abc"]
    assert made.preload(saved).update.changes == tuple(map(Put, saved))
    assert names(made) == ["a", "b", "c"]
    folded = made.replace([good("c", 1), good("d", 2)], 7, 1.0)
    assert folded.update.changes[0] == Put(endpoint("d", 2))
    assert {change.key for change in folded.update.changes[1:]} == {key("a"), key("b")}
    assert names(made) == ["c", "d"]
    assert made.held_until is None


def test_saved_view_with_a_refused_address_lacks_it() -> None:
    made = fresh_directory()
    made.preload([endpoint("a", 1), Endpoint("greeter/x", "169.254.169.254:80")])
    assert names(made) == ["a"]


def test_kept_endpoint_that_comes_back_is_an_ordinary_one_again() -> None:
    made = held_directory("a", "b")
    made.apply([gone("a", 2), gone("b", 3)], 3, 1.0)
    folded = made.apply([good("a", 9, weight=2)], 9, 5.0)
    assert folded.update.changes == (Put(endpoint("a", 9, weight=2)),)
    assert made.held == {key("b")}


def test_kept_endpoints_are_given_up_after_their_time() -> None:
    made = held_directory("a", "b", "c")
    made.apply([gone("a", 2), gone("b", 3)], 3, 1.0)
    assert made.give_up(60.9).update.changes == ()
    assert made.give_up(61.0).update.changes == (Remove(key("a")), Remove(key("b")))
    assert (names(made), made.held_until) == (["c"], None)


def test_those_who_vanish_while_others_are_kept_are_kept_with_them() -> None:
    made = held_directory("a", "b", "c", "d", "e")
    made.apply([gone("a", 2), gone("b", 3), gone("c", 4)], 4, 1.0)
    assert made.apply([gone("d", 5)], 5, 40.0).held == 1
    assert len(made.give_up(61.0).update.changes) == 4


# Addresses.


def test_refused_address_is_a_rejected_entry() -> None:
    made = fresh_directory()
    value = b'{"Op":0,"Addr":"169.254.169.254:80","Metadata":null}'
    folded = made.apply([Entry(b"greeter/x", value, 3)], 3, 0.0)
    assert folded.update.changes == ()
    assert made.skipped == 1
    (rejected,) = folded.rejected
    assert (rejected.key, rejected.revision) == ("greeter/x", 3)
    assert "169.254.169.254:80" in rejected.why
