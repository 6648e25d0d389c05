"""The checker of histories finds each kind of broken promise, and nothing in a sound history."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest
from tests.support.history import History, Kind, Listed, Told, Write, check

from etcd_grpc.codec import Entry

A2 = Entry(b"a", b"1", 2)
B3 = Entry(b"b", b"1", 3)
A4 = Entry(b"a", b"2", 4)
B4 = Entry(b"b", b"2", 4)  # one transaction with A4
A5 = Entry(b"a", None, 5)
C6 = Entry(b"c", b"1", 6)
TRUTH = (A2, B3, A4, B4, A5, C6)
FINAL = (B4, C6)
WRITES = (
    Write(frozenset({(b"a", b"1")}), 2),
    Write(frozenset({(b"b", b"1")}), 3),
    Write(frozenset({(b"a", b"2"), (b"b", b"2")}), 4),
    Write(frozenset({(b"a", None)}), 5),
    Write(frozenset({(b"c", b"1")}), 6),
)
SOUND = (
    Listed((A2,), 2),
    Told((B3,), 3),
    Told((A4, B4, A5), 5),
    Told((C6,), 6),
)


def history(seen: Sequence[Listed | Told] = SOUND, end: int = 6) -> History:
    return History(WRITES, TRUTH, FINAL, end, {"one": seen})


def kinds(made_up: History) -> set[Kind]:
    return {violation.kind for violation in check(made_up)}


def test_a_sound_history_has_no_violation() -> None:
    assert check(history()) == []


def test_a_watcher_may_be_given_a_list_instead_of_events() -> None:
    assert check(history((Listed((A2,), 2), Listed((B4,), 5), Told((C6,), 6)))) == []


def test_progress_without_events_is_no_event_lost() -> None:
    assert check(history((Listed((), 1), Told((), 1), Told(TRUTH, 6), Told((), 9)))) == []


def test_a_list_of_the_same_revision_again_is_allowed() -> None:
    assert check(history((*SOUND, Listed(FINAL, 6)))) == []


@pytest.mark.parametrize(
    ("seen", "kind"),
    [
        ((Listed((A2,), 2), Told((A4, B4, A5), 5), Told((C6,), 6)), Kind.LOST),
        ((*SOUND[:3], Told((B4, C6), 6)), Kind.DOUBLED),
        ((*SOUND, Told((C6,), 6)), Kind.DOUBLED),
        ((Listed((A2,), 2), Told((A4, B4, B3, A5), 5), Told((C6,), 6)), Kind.WENT_BACK),
        ((*SOUND[:3], Listed((A4, B4), 4), Told((C6,), 6)), Kind.WENT_BACK),
        ((*SOUND[:3], Told((C6, Entry(b"d", b"1", 6)), 6)), Kind.INVENTED),
        ((*SOUND[:3], Told((Entry(b"c", b"9", 6),), 6)), Kind.INVENTED),
        ((*SOUND[:2], Told((A4,), 4), Told((B4, A5), 5), Told((C6,), 6)), Kind.TORN),
        ((Listed((A2,), 3), *SOUND[2:]), Kind.WRONG_LIST),
        ((*SOUND[:3], Listed((), 5), Told((C6,), 6)), Kind.EMPTIED),
        (SOUND[:3], Kind.WRONG_END),
        ((), Kind.WRONG_END),
    ],
)
def test_each_broken_promise_to_a_watcher_is_found(seen: Sequence[Listed | Told], kind: Kind) -> None:
    found = check(history(seen))
    assert kind in {violation.kind for violation in found}
    assert {violation.who for violation in found} == {"one"}


def test_an_acknowledged_write_that_etcd_does_not_have_is_lost() -> None:
    extra = Write(frozenset({(b"x", b"1")}), 4)
    assert Kind.LOST in kinds(dataclasses.replace(history(), writes=(*WRITES, extra)))


def test_an_acknowledged_write_at_another_revision_is_lost() -> None:
    moved = (*WRITES[:4], WRITES[4]._replace(revision=7))
    made_up = dataclasses.replace(history(), writes=moved, final_revision=7)
    assert Kind.LOST in kinds(made_up)


def test_an_event_that_nobody_wrote_is_invented() -> None:
    assert kinds(dataclasses.replace(history(), writes=WRITES[:4])) == {Kind.INVENTED}


def test_a_write_whose_answer_was_lost_may_have_happened_once() -> None:
    unanswered = WRITES[4]._replace(revision=0)
    assert not kinds(dataclasses.replace(history(), writes=(*WRITES[:4], unanswered)))
    assert not kinds(dataclasses.replace(history(), writes=(*WRITES, unanswered)))
    c7 = C6._replace(revision=7)
    twice = dataclasses.replace(
        history((*SOUND, Told((c7,), 7)), end=7),
        writes=(*WRITES[:4], unanswered),
        truth=(*TRUTH, c7),
        final=(B4, c7),
    )
    assert kinds(twice) == {Kind.INVENTED}
    assert not kinds(dataclasses.replace(twice, writes=(*WRITES[:4], unanswered, unanswered)))


def test_a_truth_that_misses_or_repeats_an_event_voids_the_run() -> None:
    assert Kind.WRONG_END in kinds(dataclasses.replace(history(), truth=TRUTH[:5]))
    assert Kind.DOUBLED in kinds(dataclasses.replace(history(), truth=(*TRUTH, C6)))


def test_what_comes_after_the_final_range_is_ignored() -> None:
    later = Entry(b"z", b"1", 7)
    seen = (*SOUND, Told((later,), 7), Listed((later,), 9))
    assert check(dataclasses.replace(history(seen), truth=(*TRUTH, later))) == []
