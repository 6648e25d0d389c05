"""One resolver for all subscribers of a service: everything at first, then every change."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tests.support.waiting import until

from etcd_grpc.codec import Entry, NamingCodec
from etcd_grpc.config import EtcdConfig
from etcd_grpc.etcd.session import Session
from etcd_grpc.model import Change, Endpoint, Instance, Put, Remove
from etcd_grpc.resolver import Resolver, Subscription
from etcd_grpc.telemetry import Event, events, listen


class InMemorySession:
    """Remembers what is watched."""

    def __init__(self, loop: asyncio.AbstractEventLoop, cache_dir: Path | None = None) -> None:
        self.loop = loop
        self.config = EtcdConfig(("10.0.0.1:2379", "10.0.0.2:2379"), cache_dir=cache_dir)
        self.watcher = self
        self.transport = SimpleNamespace(members=("10.0.0.1:2379", "10.0.0.2:2379"))
        self.watched: dict[int, bytes] = {}
        self._handles = 0

    def add(self, prefix: bytes, sink: Any) -> int:
        self._handles += 1
        self.watched[self._handles] = prefix
        return self._handles

    def remove(self, handle: int) -> None:
        del self.watched[handle]


class Subscriber:
    """What a subscriber was given, delivery by delivery."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.deliveries: list[Sequence[Change]] = []
        self.subscription = Subscription(loop, self.deliveries.append)


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


@pytest.fixture
def session(loop: asyncio.AbstractEventLoop) -> InMemorySession:
    return InMemorySession(loop)


@pytest.fixture
def resolver(session: InMemorySession) -> Resolver:
    return Resolver(cast("Session", session), "greeter", NamingCodec())


def entry(name: str, revision: int) -> Entry:
    key, value = NamingCodec().encode(Instance("greeter", f"{name}:50051", id=name))
    return Entry(key, value, revision)


def endpoint(name: str, revision: int) -> Endpoint:
    return NamingCodec().decode(entry(name, revision))


def run(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_until_complete(asyncio.sleep(0))


def test_service_is_watched_once_for_all_subscribers(
    resolver: Resolver, session: InMemorySession, loop: asyncio.AbstractEventLoop
) -> None:
    subscribers = [Subscriber(loop) for _ in range(3)]
    for subscriber in subscribers:
        resolver.subscribe(subscriber.subscription)
    assert list(session.watched.values()) == [b"greeter/"]
    assert [resolver.unsubscribe(subscriber.subscription) for subscriber in subscribers] == [
        False,
        False,
        True,
    ]
    assert session.watched == {}


def test_every_subscriber_gets_the_list_and_the_changes(
    resolver: Resolver, loop: asyncio.AbstractEventLoop
) -> None:
    subscribers = [Subscriber(loop) for _ in range(2)]
    for subscriber in subscribers:
        resolver.subscribe(subscriber.subscription)
    resolver.replace([entry("a", 1)], 1)
    run(loop)
    resolver.apply([entry("b", 2), Entry(b"greeter/a:50051", None, 3)], 3)
    run(loop)
    for subscriber in subscribers:
        assert subscriber.deliveries == [
            (Put(endpoint("a", 1)),),
            (Put(endpoint("b", 2)), Remove("greeter/a:50051")),
        ]


def test_late_subscriber_gets_all_that_is_known(
    resolver: Resolver, loop: asyncio.AbstractEventLoop
) -> None:
    resolver.subscribe(Subscriber(loop).subscription)
    resolver.replace([entry("a", 1), entry("b", 1)], 1)
    late = Subscriber(loop)
    resolver.subscribe(late.subscription)
    run(loop)
    assert late.deliveries == [(Put(endpoint("a", 1)), Put(endpoint("b", 1)))]


def test_subscriber_before_the_first_answer_waits_for_it(
    resolver: Resolver, loop: asyncio.AbstractEventLoop
) -> None:
    subscriber = Subscriber(loop)
    resolver.subscribe(subscriber.subscription)
    run(loop)
    assert subscriber.deliveries == []
    assert not resolver.resolved


def test_empty_service_is_an_answer_once(resolver: Resolver, loop: asyncio.AbstractEventLoop) -> None:
    subscriber = Subscriber(loop)
    resolver.subscribe(subscriber.subscription)
    for revision in (1, 2, 3):
        resolver.replace([], revision)
        run(loop)
    assert subscriber.deliveries == [()]
    assert resolver.resolved


def test_late_subscriber_of_an_empty_service_is_answered_too(
    resolver: Resolver, loop: asyncio.AbstractEventLoop
) -> None:
    resolver.subscribe(Subscriber(loop).subscription)
    resolver.replace([], 1)
    late = Subscriber(loop)
    resolver.subscribe(late.subscription)
    run(loop)
    assert late.deliveries == [()]


def test_relist_that_brings_nothing_new_disturbs_nobody(
    resolver: Resolver, loop: asyncio.AbstractEventLoop
) -> None:
    subscriber = Subscriber(loop)
    resolver.subscribe(subscriber.subscription)
    for revision in (1, 5, 9):
        resolver.replace([entry("a", 1)], revision)
        run(loop)
    assert len(subscriber.deliveries) == 1


def test_unsubscribed_one_gets_nothing_more_and_the_others_do(
    resolver: Resolver, loop: asyncio.AbstractEventLoop
) -> None:
    gone, there = Subscriber(loop), Subscriber(loop)
    for subscriber in (gone, there):
        resolver.subscribe(subscriber.subscription)
    resolver.unsubscribe(gone.subscription)
    resolver.replace([entry("a", 1)], 1)
    run(loop)
    assert (gone.deliveries, len(there.deliveries)) == ([], 1)


def test_garbage_is_logged_once_and_escaped(
    resolver: Resolver, loop: asyncio.AbstractEventLoop, caplog: pytest.LogCaptureFixture
) -> None:
    bad = Entry(b"greeter/x", b'{"Addr":"\\u001b[31m<script>"}', 4)
    with caplog.at_level(logging.WARNING, "etcd_grpc.resolver"):
        resolver.subscribe(Subscriber(loop).subscription)
        resolver.replace([bad, entry("a", 1)], 4)
        resolver.replace([bad, entry("a", 1)], 9)
    assert len(caplog.messages) == 1
    assert "greeter/x" in caplog.text
    assert "\x1b" not in caplog.text
    assert list(resolver.snapshot().endpoints) == ["greeter/a:50051"]


def test_what_was_on_its_way_does_not_reach_who_has_unsubscribed(
    resolver: Resolver, loop: asyncio.AbstractEventLoop
) -> None:
    subscriber = Subscriber(loop)
    resolver.subscribe(subscriber.subscription)
    resolver.replace([entry("a", 1)], 1)
    resolver.unsubscribe(subscriber.subscription)
    run(loop)
    assert subscriber.deliveries == []


def test_service_is_watched_again_for_a_subscriber_after_the_last(
    resolver: Resolver, session: InMemorySession, loop: asyncio.AbstractEventLoop
) -> None:
    first = Subscriber(loop)
    resolver.subscribe(first.subscription)
    resolver.unsubscribe(first.subscription)
    resolver.subscribe(Subscriber(loop).subscription)
    assert list(session.watched.values()) == [b"greeter/"]


def test_events_that_change_no_endpoint_disturb_nobody(
    resolver: Resolver, loop: asyncio.AbstractEventLoop
) -> None:
    subscriber = Subscriber(loop)
    resolver.subscribe(subscriber.subscription)
    resolver.replace([], 1)
    run(loop)
    resolver.apply([Entry(b"greeter/x", b"{", 2)], 2)
    run(loop)
    assert subscriber.deliveries == [()]


# What others may ask.


def test_snapshot_before_the_first_answer_is_empty_and_not_connected(resolver: Resolver) -> None:
    snapshot = resolver.snapshot()
    assert (snapshot.service, dict(snapshot.endpoints), snapshot.revision) == ("greeter", {}, 0)
    assert not snapshot.connected
    assert "has not answered yet" in resolver.status()


def test_snapshot_is_of_its_moment(resolver: Resolver) -> None:
    resolver.replace([entry("a", 1)], 7)
    snapshot = resolver.snapshot()
    resolver.apply([entry("b", 8)], 8)
    assert list(snapshot.endpoints) == ["greeter/a:50051"]
    assert (snapshot.revision, snapshot.connected) == (7, True)
    with pytest.raises(TypeError):
        snapshot.endpoints["x"] = endpoint("x", 1)  # type: ignore[index]


def test_without_etcd_the_view_stays_and_is_marked(resolver: Resolver) -> None:
    resolver.replace([entry("a", 1)], 7)
    resolver.followed(False, "no route to host")
    snapshot = resolver.snapshot()
    assert list(snapshot.endpoints) == ["greeter/a:50051"]
    assert not snapshot.connected
    assert "no route to host" in resolver.status()
    assert "10.0.0.1:2379, 10.0.0.2:2379" in resolver.status()
    resolver.followed(True, "")
    assert resolver.snapshot().connected
    assert "revision 7" in resolver.status()


def test_view_that_is_not_etcds_says_for_how_long(resolver: Resolver) -> None:
    resolver.replace([entry("a", 1)], 7)
    assert resolver.snapshot().stale_s == 0
    resolver.followed(False, "no route to host")
    first = resolver.snapshot().stale_s
    resolver.followed(False, "no route to host")
    assert 0 <= first <= resolver.snapshot().stale_s < 60
    resolver.followed(True, "")
    assert resolver.snapshot().stale_s == 0


def test_those_who_vanish_together_are_kept_and_marked(
    resolver: Resolver, loop: asyncio.AbstractEventLoop
) -> None:
    subscriber = Subscriber(loop)
    resolver.subscribe(subscriber.subscription)
    resolver.replace([entry("a", 1), entry("b", 1)], 1)
    resolver.replace([], 5)
    run(loop)
    assert len(subscriber.deliveries) == 1
    snapshot = resolver.snapshot()
    assert set(snapshot.endpoints) == set(snapshot.held) == {"greeter/a:50051", "greeter/b:50051"}
    resolver.unsubscribe(subscriber.subscription)


def test_what_happens_is_told_to_listeners(resolver: Resolver) -> None:
    told: list[Event] = []
    with listen(told.append):
        resolver.replace([entry("a", 1), Entry(b"greeter/x", b"{", 2)], 2)
        resolver.apply([entry("b", 3)], 3)
        resolver.followed(False, "gone")
        resolver.followed(True, "")
        resolver.replace([], 9)
    assert [type(event) for event in told] == [
        events.EntryRejected,
        events.Changed,
        events.Resolved,
        events.Changed,
        events.Stale,
        events.Fresh,
        events.HoldStarted,
        events.Relisted,
    ]
    assert resolver.snapshot().rejected == 0


async def cached_resolver(folder: Path) -> Resolver:
    loop = asyncio.get_running_loop()
    return Resolver(cast("Session", InMemorySession(loop, folder)), "greeter", NamingCodec())


async def test_view_is_saved_and_a_start_without_etcd_begins_with_it(tmp_path: Path) -> None:
    first = await cached_resolver(tmp_path / "cache")
    subscriber = Subscriber(asyncio.get_running_loop())
    first.subscribe(subscriber.subscription)
    first.replace([entry("a", 1), entry("b", 1)], 1)
    first.unsubscribe(subscriber.subscription)  # what was not saved yet is saved then
    await until(lambda: list((tmp_path / "cache").glob("*.json")), "saved")

    told: list[Event] = []
    second = await cached_resolver(tmp_path / "cache")
    again = Subscriber(asyncio.get_running_loop())
    with listen(told.append):
        second.subscribe(again.subscription)
        await until(lambda: second.resolved, "resolved")
        await until(lambda: again.deliveries, "delivered")
    assert again.deliveries == [(Put(endpoint("a", 1)), Put(endpoint("b", 1)))]
    assert not second.connected
    assert second.snapshot().stale_s >= 0
    assert [type(event) for event in told] == [events.Changed, events.SnapshotLoaded]

    second.replace([entry("b", 1), entry("c", 2)], 2)  # etcd is back, and a is not held
    second.followed(True, "")
    await until(lambda: len(again.deliveries) == 2, "delivered again")
    assert again.deliveries[1] == (Put(endpoint("c", 2)), Remove("greeter/a:50051"))
    assert second.snapshot().stale_s == 0
    second.unsubscribe(again.subscription)
    await asyncio.sleep(0.1)


async def test_answer_of_etcd_is_worth_more_than_what_was_saved(tmp_path: Path) -> None:
    first = await cached_resolver(tmp_path)
    subscriber = Subscriber(asyncio.get_running_loop())
    first.subscribe(subscriber.subscription)
    first.replace([entry("a", 1)], 1)
    first.unsubscribe(subscriber.subscription)
    await until(lambda: list(tmp_path.glob("*.json")), "saved")
    second = await cached_resolver(tmp_path)
    late = Subscriber(asyncio.get_running_loop())
    second.subscribe(late.subscription)
    second.replace([], 9)
    await asyncio.sleep(1)  # longer than the patience after which the file is read
    assert second.snapshot().endpoints == {}
    second.unsubscribe(late.subscription)
