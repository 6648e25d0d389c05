"""Channels are made in slices of time: everybody else on the loop has a turn in between."""

from __future__ import annotations

import asyncio
import time

from etcd_grpc.channel.backlog import SLICE_S, Backlog
from etcd_grpc.model import Endpoint


class Work:
    """Connects slowly: one endpoint takes a slice."""

    def __init__(self) -> None:
        self.connected: list[str] = []
        self.slices = 0
        self.room = True
        loop = asyncio.get_running_loop()
        self.backlog = Backlog(loop, self._connect, lambda: self.room, self._after)

    def put(self, *keys: str) -> None:
        for key in keys:
            self.backlog.put(Endpoint(key, "127.0.0.1:1"))

    def _connect(self, endpoint: Endpoint) -> None:
        self.connected.append(endpoint.key)
        time.sleep(2 * SLICE_S)

    def _after(self) -> None:
        self.slices += 1

    async def done(self) -> None:
        async with asyncio.timeout(10):
            while self.backlog:
                await asyncio.sleep(0)


async def test_the_first_slice_is_done_at_once_and_the_others_in_turn_with_the_loop() -> None:
    work = Work()
    work.put("a", "b", "c")
    work.backlog.work()
    assert work.connected == ["a"]
    seen: list[int] = []
    while work.backlog:
        seen.append(len(work.connected))
        await asyncio.sleep(0)
    assert seen == [1, 2], "the loop had a turn between two slices"
    assert work.connected == ["a", "b", "c"]
    assert work.slices == 3


async def test_new_endpoints_wait_for_the_slice_that_is_due() -> None:
    work = Work()
    work.put("a", "b")
    work.backlog.work()
    work.put("c")
    work.backlog.work()
    assert work.connected == ["a"]
    await work.done()
    assert work.connected == ["a", "b", "c"]


async def test_an_endpoint_that_leaves_meanwhile_is_not_connected() -> None:
    work = Work()
    work.put("a", "b", "c")
    work.backlog.work()
    work.backlog.drop("b")
    work.backlog.drop("never there")
    assert list(work.backlog) == ["c"]
    await work.done()
    assert work.connected == ["a", "c"]


async def test_an_endpoint_that_is_put_again_is_connected_once() -> None:
    work = Work()
    work.put("a", "b", "b")
    work.backlog.work()
    await work.done()
    assert work.connected == ["a", "b"]


async def test_after_close_nothing_is_connected() -> None:
    work = Work()
    work.put("a", "b")
    work.backlog.work()
    work.backlog.close()
    await asyncio.sleep(0.05)
    assert work.connected == ["a"]
    assert "b" not in work.backlog


async def test_without_room_the_others_are_connected_when_there_is_or_after_a_moment() -> None:
    work = Work()
    work.put(*"abcdef")
    work.room = False
    began = time.monotonic()
    work.backlog.work()
    await work.done()
    patient_s = time.monotonic() - began
    assert work.connected == [*"abcdef"]
    assert patient_s > 5 * 0.05, "each waited for room as long as it may"
    work.put(*"ghijkl")
    work.room = True
    work.backlog.work()
    await work.done()
    assert work.connected == [*"abcdefghijkl"]
