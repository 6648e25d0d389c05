"""One resolver for all subscribers of a service: everything at first, then every change."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from etcd_grpc.codec import Entry, NamingCodec
from etcd_grpc.etcd.session import Session
from etcd_grpc.model import Change, Endpoint, Instance, Put, Remove
from etcd_grpc.resolver import Resolver, Subscription


class InMemorySession:
    """Remembers what is watched."""

    def __init__(self) -> None:
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
def session() -> InMemorySession:
    return InMemorySession()


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
