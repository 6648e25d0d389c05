"""However the events came about, the directory holds what a fresh list of the end state gives."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from etcd_grpc.address import AddressPolicy
from etcd_grpc.codec import Entry, NamingCodec
from etcd_grpc.directory import Directory, Rejected
from etcd_grpc.guard import DisappearanceGuard
from etcd_grpc.model import Change, Endpoint, Instance, Put

NAMES = ["a", "b", "c", "d", "e"]
GARBAGE = [b"", b"{", b'{"Addr":"10.0.0.5"}', b"\xff"]


def fresh_directory(hold_s: float = 0.0) -> Directory:
    return Directory(NamingCodec(), AddressPolicy(), DisappearanceGuard(hold_s))


def value_of(name: str, weight: int) -> bytes:
    return NamingCodec().encode(Instance("greeter", f"{name}:50051", id=name, weight=weight))[1]


# What happens to one key: a good value, garbage, or (None) its deletion.
values = st.one_of(
    st.tuples(st.sampled_from(NAMES), st.integers(0, 2)).map(lambda made: value_of(*made)),
    st.sampled_from(GARBAGE),
    st.none(),
)
keys = st.sampled_from([f"greeter/{name}".encode() for name in NAMES])
# Transactions: one revision each, each key at most once.
histories = st.lists(st.dictionaries(keys, values, min_size=1, max_size=3), max_size=25)


def entries_of(history: Iterable[dict[bytes, bytes | None]], first: int = 1) -> list[list[Entry]]:
    """One list of entries for each revision."""
    return [
        [Entry(key, value, revision) for key, value in transaction.items()]
        for revision, transaction in enumerate(history, first)
    ]


def live(transactions: Iterable[list[Entry]]) -> dict[bytes, Entry]:
    """What etcd holds in the end."""
    found: dict[bytes, Entry] = {}
    for entry in (entry for transaction in transactions for entry in transaction):
        if entry.value is None:
            found.pop(entry.key, None)
        else:
            found[entry.key] = entry
    return found


def apply_to(view: dict[str, Endpoint], changes: Iterable[Change]) -> None:
    """What a subscriber does; a removal of what is not there would be a KeyError."""
    for change in changes:
        if isinstance(change, Put):
            assert view.get(change.key) != change.endpoint  # a change that changes something
            view[change.key] = change.endpoint
        else:
            del view[change.key]


def rebuilt(entries: Iterable[Entry], revision: int) -> Directory:
    directory = fresh_directory()
    directory.replace(entries, revision, 0.0)
    return directory


def folded(transactions: list[list[Entry]]) -> tuple[Directory, dict[str, Endpoint], list[Rejected]]:
    """A directory that was told every transaction, a subscriber's view, and all complaints."""
    directory = fresh_directory()
    view: dict[str, Endpoint] = {}
    complaints: list[Rejected] = []
    for transaction in transactions:
        result = directory.apply(transaction, transaction[0].revision, 0.0)
        apply_to(view, result.update.changes)
        complaints += result.rejected
        assert view == dict(directory.endpoints)
    return directory, view, complaints


@given(histories)
def test_folding_events_is_the_same_as_listing_the_end_state(
    history: list[dict[bytes, bytes | None]],
) -> None:
    transactions = entries_of(history)
    directory, _, _ = folded(transactions)
    fresh = rebuilt(live(transactions).values(), len(transactions))
    assert dict(directory.endpoints) == dict(fresh.endpoints)
    assert directory.skipped == fresh.skipped


@given(histories)
def test_changes_applied_to_a_dict_are_the_endpoints(history: list[dict[bytes, bytes | None]]) -> None:
    directory, view, _ = folded(entries_of(history))
    assert view == dict(directory.endpoints)


@given(histories)
def test_every_bad_entry_is_complained_about_once(history: list[dict[bytes, bytes | None]]) -> None:
    transactions = entries_of(history)
    directory, _, complaints = folded(transactions)
    bad = sum(entry.value in GARBAGE for transaction in transactions for entry in transaction)
    assert len(complaints) == bad
    again = directory.replace(live(transactions).values(), len(transactions), 0.0)
    assert again.rejected == ()
    assert again.update.changes == ()


@given(histories, histories)
def test_replace_is_the_same_as_applying_what_happened_since(
    before: list[dict[bytes, bytes | None]], since: list[dict[bytes, bytes | None]]
) -> None:
    known = entries_of(before)
    missed = entries_of(since, len(known) + 1)
    followed, _, _ = folded(known + missed)
    relisted, view, _ = folded(known)
    result = relisted.replace(live(known + missed).values(), len(known) + len(missed), 0.0)
    apply_to(view, result.update.changes)
    assert view == dict(relisted.endpoints) == dict(followed.endpoints)
    assert relisted.skipped == followed.skipped
    assert relisted.revision == result.update.revision == len(known) + len(missed)


@given(histories, histories)
def test_replace_touches_each_key_once_and_only_those_that_differ(
    before: list[dict[bytes, bytes | None]], since: list[dict[bytes, bytes | None]]
) -> None:
    known = entries_of(before)
    missed = entries_of(since, len(known) + 1)
    directory, view, _ = folded(known)
    result = directory.replace(live(known + missed).values(), len(known) + len(missed), 0.0)
    touched = [change.key for change in result.update.changes]
    assert len(set(touched)) == len(touched)
    after = dict(directory.endpoints)
    assert set(touched) == {key for key in view | after if view.get(key) != after.get(key)}


@given(histories, st.integers(1, 5))
def test_how_events_are_grouped_does_not_matter(
    history: list[dict[bytes, bytes | None]], size: int
) -> None:
    transactions = entries_of(history)
    one_by_one, _, _ = folded(transactions)
    grouped = fresh_directory()
    for start in range(0, len(transactions), size):
        batch = [entry for transaction in transactions[start : start + size] for entry in transaction]
        grouped.apply(batch, batch[-1].revision, 0.0)
    assert list(grouped.endpoints.items()) == list(one_by_one.endpoints.items())


@given(histories)
def test_events_that_come_twice_change_nothing(history: list[dict[bytes, bytes | None]]) -> None:
    directory = fresh_directory()
    for transaction in entries_of(history):
        directory.apply(transaction, transaction[0].revision, 0.0)
        again = directory.apply(transaction, transaction[0].revision, 0.0)
        assert again.update.changes == ()
        assert again.rejected == ()


@given(histories, st.lists(st.floats(0, 30), min_size=25, max_size=25))
def test_whatever_is_kept_the_changes_add_up_and_in_the_end_it_is_etcds_view(
    history: list[dict[bytes, bytes | None]], pauses: list[float]
) -> None:
    directory = fresh_directory(60.0)
    view: dict[str, Endpoint] = {}
    now = 0.0
    transactions = entries_of(history)
    for transaction, pause in zip(transactions, pauses, strict=False):
        now += pause
        apply_to(view, directory.give_up(now).update.changes)
        apply_to(view, directory.apply(transaction, transaction[0].revision, now).update.changes)
        assert view == dict(directory.endpoints)
        assert directory.held <= view.keys()
    apply_to(view, directory.give_up(now + 61).update.changes)
    assert view == dict(rebuilt(live(transactions).values(), len(transactions)).endpoints)
