"""What others do to a registered key, and what the registrar makes of it."""

from __future__ import annotations

import asyncio

import pytest

from etcd_grpc.codec import Entry
from etcd_grpc.intent import Intent
from etcd_grpc.key_guard import KeyGuard
from etcd_grpc.model import Instance
from etcd_grpc.telemetry import Event, events, listen
from etcd_grpc.wakeup import Wakeup

KEY = b"greeter/10.0.0.5:1"


@pytest.fixture
def intent() -> Intent:
    """Stands as wanted since revision 10, under the first lease."""
    made = Intent(Instance("greeter", "10.0.0.5:1", id="a"), KEY)
    made.want(made.instance, b"ours")
    made.placed, made.revision, made.stood, made.lost = (1, 1), 10, True, False
    return made


@pytest.fixture
def guard(intent: Intent) -> KeyGuard:
    return KeyGuard(intent, Wakeup())


def entry(value: bytes | None, revision: int) -> Entry:
    return Entry(KEY, value, revision)


def test_our_own_put_means_nothing(intent: Intent, guard: KeyGuard) -> None:
    guard.apply([entry(b"ours", 10)], 10)
    guard.apply([entry(b"ours", 11)], 11)
    assert intent.stands(1)


def test_deletion_makes_it_missing_and_is_told(intent: Intent, guard: KeyGuard) -> None:
    told: list[Event] = []
    with listen(told.append):
        guard.apply([entry(None, 12)], 12)
    assert intent.missing(1)
    assert (intent.revision, intent.lost) == (0, True)
    assert [type(event) for event in told] == [events.KeyLost]


def test_deletion_from_before_our_put_means_nothing(intent: Intent, guard: KeyGuard) -> None:
    guard.apply([entry(None, 9)], 9)
    assert intent.stands(1)


def test_another_value_is_looked_into(intent: Intent, guard: KeyGuard) -> None:
    guard.apply([entry(b"theirs", 12)], 12)
    assert intent.missing(1)
    assert not intent.lost


def test_key_of_another_process_is_ours_again_when_it_is_gone(intent: Intent, guard: KeyGuard) -> None:
    intent.yielded = True
    told: list[Event] = []
    with listen(told.append):
        guard.apply([entry(b"theirs, too", 12)], 12)
        assert not intent.missing(1)
        guard.apply([entry(None, 13)], 13)
    assert intent.missing(1)
    assert not told


def test_list_of_another_store_without_it_makes_it_missing(intent: Intent, guard: KeyGuard) -> None:
    """Its revisions are lower than ours, and mean nothing."""
    guard.replace([], 3)
    assert intent.missing(1)


def test_list_that_has_it_changes_nothing(intent: Intent, guard: KeyGuard) -> None:
    guard.replace([entry(b"ours", 10)], 50)
    assert intent.stands(1)


def test_what_is_leaving_is_not_put_again(intent: Intent, guard: KeyGuard) -> None:
    intent.leaving = True
    guard.apply([entry(None, 12)], 12)
    assert not intent.missing(1)
    assert intent.revision == 10


async def test_who_waits_is_woken() -> None:
    wakeup = Wakeup()
    waiting = [asyncio.ensure_future(wakeup.wait()) for _ in range(2)]
    await asyncio.sleep(0)
    assert not any(waiter.done() for waiter in waiting)
    waiting[0].cancel()
    await asyncio.sleep(0)
    wakeup.tell()
    await asyncio.wait_for(waiting[1], 10)
    late = asyncio.ensure_future(wakeup.wait())
    await asyncio.sleep(0)
    assert not late.done()
    late.cancel()
