"""How late an event loop is, seen from another one."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest
from tests.support.waiting import wait_until

from etcd_grpc.server.heartbeat import Heartbeat
from etcd_grpc.server.lifecycle import Event


@pytest.fixture
def loops() -> Iterator[tuple[asyncio.AbstractEventLoop, asyncio.AbstractEventLoop]]:
    """Two loops that run in threads of their own."""
    made = [asyncio.new_event_loop() for _ in range(2)]
    threads = [threading.Thread(target=loop.run_forever) for loop in made]
    for thread in threads:
        thread.start()
    yield made[0], made[1]
    for loop, thread in zip(made, threads, strict=True):
        if not loop.is_closed():
            loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_a_blocked_loop_is_told_of_while_it_is_blocked_and_when_it_recovers(
    loops: tuple[asyncio.AbstractEventLoop, asyncio.AbstractEventLoop],
) -> None:
    control, watched = loops
    told: list[Event] = []
    lags: list[float] = []
    over = threading.Event()
    release = threading.Event()

    def tell(event: Event, lag_s: float) -> None:
        lags.append(lag_s)
        told.append(event)  # the last: it is waited for

    heartbeat = Heartbeat(control, watched, 0.2, tell, over.is_set)
    watched.call_soon_threadsafe(release.wait, 30)  # blocks it
    control.call_soon_threadsafe(heartbeat.start)
    wait_until(lambda: told == [Event.LAGGED], "told while it is blocked")
    assert lags[0] > 0.2
    assert heartbeat.lag_s > 0.2
    release.set()
    # It comes after a calm second, which a busy machine may not have at once; and so it may lag again.
    wait_until(lambda: told[:2] == [Event.LAGGED, Event.RECOVERED], "told of the recovery", 60)
    over.set()


def test_it_ends_with_the_watched_loop(
    loops: tuple[asyncio.AbstractEventLoop, asyncio.AbstractEventLoop],
) -> None:
    control, watched = loops
    looks: list[float] = []
    wrong: list[object] = []
    control.set_exception_handler(lambda _loop, context: wrong.append(context))

    def over() -> bool:
        looks.append(time.monotonic())
        return False

    heartbeat = Heartbeat(control, watched, 30, lambda _event, _lag: None, over)
    control.call_soon_threadsafe(heartbeat.start)
    wait_until(lambda: looks, "looked once")
    watched.call_soon_threadsafe(watched.stop)
    wait_until(lambda: not watched.is_running(), "stopped")
    watched.close()
    wait_until(lambda: time.monotonic() - looks[-1] > 1, "nobody looks any more")
    assert wrong == []
