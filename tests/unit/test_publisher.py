"""When a set publishes a new picker."""

from __future__ import annotations

import asyncio

import pytest
from tests.support.waiting import until

from etcd_grpc.channel import publisher
from etcd_grpc.channel.publisher import Publisher


class Set:
    """Of ``size`` endpoints, ``connecting`` or not; notes when it published."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.connecting = False
        self.published: list[float] = []
        self.loop = asyncio.get_running_loop()
        self.publisher = Publisher(self.loop, self._publish, lambda: self.size)

    def _publish(self) -> None:
        if not self.publisher.is_early(lambda: self.connecting):
            self.published.append(self.loop.time())


async def test_many_changes_share_one_picker_in_a_turn_of_its_own() -> None:
    made = Set(3)
    for _ in range(10):
        made.publisher.soon()
    assert not made.published
    await asyncio.sleep(0)
    assert len(made.published) == 1


async def test_a_large_set_publishes_at_intervals() -> None:
    made = Set(500)
    made.publisher.soon()
    await until(lambda: made.published, "the first one, at once")
    made.publisher.soon()
    await until(lambda: len(made.published) == 2, "the second one")
    first, second = made.published
    assert second - first > made.publisher.interval_s - 0.001
    made.size = 499
    assert made.publisher.interval_s == 0


async def test_the_first_one_waits_for_those_that_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher, "_FIRST_S", 60.0)
    made = Set(2)
    made.connecting = True
    made.publisher.soon()
    await asyncio.sleep(0.01)
    assert not made.published
    made.connecting = False
    made.publisher.soon()
    await until(lambda: made.published, "all have shown if they can be reached")
    made.publisher.close()


async def test_the_first_one_waits_no_longer_than_a_moment() -> None:
    made = Set(2)
    made.connecting = True
    made.publisher.soon()
    await until(lambda: made.published, "by itself")
    made.publisher.soon()
    await until(lambda: len(made.published) == 2, "later ones do not wait")


async def test_without_endpoints_nothing_is_waited_for() -> None:
    made = Set(0)
    made.connecting = True
    made.publisher.soon()
    await asyncio.sleep(0)
    assert len(made.published) == 1


async def test_after_the_close_nothing_is_published() -> None:
    made = Set(2)
    made.publisher.soon()
    made.publisher.close()
    await asyncio.sleep(0.01)
    assert not made.published
