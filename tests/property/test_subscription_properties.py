"""Whenever the subscriber's loop runs, what it is given brings it to the latest state."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from etcd_grpc.model import Change, Endpoint, Put, Remove
from etcd_grpc.resolver import Subscription

keys = st.sampled_from("abcde")
changes = st.one_of(
    st.builds(
        lambda key, weight: Put(Endpoint(key, "10.0.0.5:1", weight=weight)), keys, st.integers(0, 3)
    ),
    st.builds(Remove, keys),
)
# What happens: changes are offered (a list), or the subscriber's loop runs (None).
courses = st.lists(st.lists(changes, max_size=4) | st.none(), max_size=30)


def apply(view: dict[str, Endpoint], given_changes: Sequence[Change]) -> None:
    for change in given_changes:
        if isinstance(change, Put):
            view[change.key] = change.endpoint
        else:
            view.pop(change.key, None)


class Subscriber:
    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.view: dict[str, Endpoint] = {}
        self.deliveries: list[Sequence[Change]] = []
        self.subscription = Subscription(self.loop, self._take)

    def _take(self, delivered: Sequence[Change]) -> None:
        self.deliveries.append(delivered)
        apply(self.view, delivered)

    def run(self) -> None:
        self.loop.run_until_complete(asyncio.sleep(0))


def followed(course: list[Any]) -> tuple[Subscriber, dict[str, Endpoint]]:
    """A subscriber after ``course``, and the state that it should have reached."""
    subscriber, state = Subscriber(), dict[str, Endpoint]()
    touched: set[str] = set()  # since the loop last ran
    for what in course:
        if what is None:
            before = len(subscriber.deliveries)
            subscriber.run()
            delivered = subscriber.deliveries[before:]
            assert len(delivered) <= 1
            assert {change.key for part in delivered for change in part} == touched
            assert sum(map(len, delivered)) == len(touched)  # one change for each key, no more
            assert subscriber.view == state
            touched.clear()
        else:
            subscriber.subscription.offer(what)
            apply(state, what)
            touched.update(change.key for change in what)
    return subscriber, state


@given(courses)
def test_subscriber_has_the_latest_state_whenever_its_loop_has_run(course: list[Any]) -> None:
    subscriber, state = followed([*course, None])
    subscriber.loop.close()
    assert subscriber.view == state


@given(courses)
def test_subscriber_that_never_ran_holds_at_most_one_change_for_each_key(course: list[Any]) -> None:
    offered = [what for what in course if what is not None]
    subscriber, _ = followed([*offered, None])
    subscriber.loop.close()
    assert len(subscriber.deliveries) == (1 if offered else 0)


@given(courses, courses)
def test_closed_subscriber_is_given_nothing_more(before: list[Any], after: list[Any]) -> None:
    subscriber, _ = followed(before)
    delivered = len(subscriber.deliveries)
    subscriber.subscription.close()
    for what in [*after, None]:
        if what is None:
            subscriber.run()
        else:
            subscriber.subscription.offer(what)
    subscriber.loop.close()
    assert len(subscriber.deliveries) == delivered
