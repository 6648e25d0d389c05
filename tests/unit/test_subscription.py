"""Changes reach a subscriber on its own loop, the latest of each key, however long it was busy."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence

import pytest

from etcd_grpc.model import Change, Endpoint, Put, Remove
from etcd_grpc.resolver import Subscription


def put(name: str, revision: int = 1) -> Put:
    return Put(Endpoint(name, "10.0.0.5:50051", revision=revision))


class Subscriber:
    """A loop that runs only when told to; what it was given, delivery by delivery."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.deliveries: list[Sequence[Change]] = []
        self.threads: list[threading.Thread] = []
        self.subscription = Subscription(self.loop, self._take)

    def _take(self, changes: Sequence[Change]) -> None:
        self.deliveries.append(changes)
        self.threads.append(threading.current_thread())

    def wake(self) -> None:
        """Let the loop run what has been posted to it."""
        self.loop.run_until_complete(asyncio.sleep(0))


@pytest.fixture
def subscriber() -> Iterator[Subscriber]:
    made = Subscriber()
    yield made
    made.loop.close()


def test_changes_are_delivered_on_the_loop_and_not_by_the_caller(subscriber: Subscriber) -> None:
    caller = threading.Thread(target=subscriber.subscription.offer, args=([put("a")],))
    caller.start()
    caller.join(timeout=10)
    assert subscriber.deliveries == []
    subscriber.wake()
    assert subscriber.deliveries == [(put("a"),)]
    assert subscriber.threads == [threading.current_thread()]


def test_changes_keep_their_order(subscriber: Subscriber) -> None:
    subscriber.subscription.offer([put("a"), Remove("b"), put("c")])
    subscriber.wake()
    assert subscriber.deliveries == [(put("a"), Remove("b"), put("c"))]


def test_no_changes_at_all_still_wake_it(subscriber: Subscriber) -> None:
    """An empty service is an answer too."""
    subscriber.subscription.offer([])
    subscriber.wake()
    assert subscriber.deliveries == [()]


def test_busy_subscriber_gets_everything_in_one_delivery(subscriber: Subscriber) -> None:
    for name in "abc":
        subscriber.subscription.offer([put(name)])
    subscriber.wake()
    assert subscriber.deliveries == [(put("a"), put("b"), put("c"))]


def test_of_one_key_the_last_change_is_delivered(subscriber: Subscriber) -> None:
    subscriber.subscription.offer([put("a", 1), put("b", 1)])
    subscriber.subscription.offer([Remove("a")])
    subscriber.subscription.offer([put("a", 3)])
    subscriber.wake()
    assert subscriber.deliveries == [(put("b", 1), put("a", 3))]


def test_removal_of_what_was_never_delivered_is_delivered(subscriber: Subscriber) -> None:
    """The subscriber may have it from an earlier delivery."""
    subscriber.subscription.offer([put("a")])
    subscriber.wake()
    subscriber.subscription.offer([put("a", 2)])
    subscriber.subscription.offer([Remove("a")])
    subscriber.wake()
    assert subscriber.deliveries == [(put("a"),), (Remove("a"),)]


def test_endpoint_that_changes_for_a_long_time_costs_one_change(subscriber: Subscriber) -> None:
    for revision in range(10_000):
        subscriber.subscription.offer([put("a", revision)])
    subscriber.wake()
    assert subscriber.deliveries == [(put("a", 9_999),)]


def test_what_comes_after_a_delivery_is_a_new_one(subscriber: Subscriber) -> None:
    subscriber.subscription.offer([put("a")])
    subscriber.wake()
    subscriber.wake()
    subscriber.subscription.offer([put("b")])
    subscriber.wake()
    assert subscriber.deliveries == [(put("a"),), (put("b"),)]


def test_offer_from_within_a_delivery_is_delivered_next() -> None:
    loop = asyncio.new_event_loop()
    deliveries: list[Sequence[Change]] = []

    def take(changes: Sequence[Change]) -> None:
        deliveries.append(changes)
        if len(deliveries) == 1:
            subscription.offer([put("b")])

    subscription = Subscription(loop, take)
    subscription.offer([put("a")])
    for _ in range(2):
        loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    assert deliveries == [(put("a"),), (put("b"),)]


def test_closed_subscription_delivers_nothing_more(subscriber: Subscriber) -> None:
    subscriber.subscription.offer([put("a")])
    subscriber.subscription.close()
    subscriber.subscription.offer([put("b")])
    subscriber.wake()
    assert subscriber.deliveries == []


def test_loop_that_was_closed_without_a_word_is_tolerated() -> None:
    subscriber = Subscriber()
    subscriber.loop.close()
    for _ in range(3):
        subscriber.subscription.offer([put("a")])
    assert subscriber.deliveries == []
