"""32 threads call through one channel while its endpoints come and go.

No call fails, none stays counted as in flight, and no endpoint is called that had left the picker
before the call began.  ``ETCD_GRPC_TEST_THREADS_S`` makes it run longer.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple, Self

import grpc
import pytest
from tests.support.calls import who
from tests.support.processes import EchoServer
from tests.support.waiting import wait_until

import etcd_grpc

THREADS = 32
READY = grpc.ChannelConnectivity.READY
SECONDS = float(os.environ.get("ETCD_GRPC_TEST_THREADS_S", "3"))
POLICIES: dict[str, Any] = {
    "round_robin": "round_robin",
    "everything": [
        {"outlier_detection": {"childPolicy": [{"least_request": {"load": "peak_ewma"}}]}},
    ],
}


class Answered(NamedTuple):
    """One call: who answered, when it began and when it ended (time.monotonic)."""

    address: str
    began: float
    ended: float


class Absence(NamedTuple):
    """An endpoint was out of the picker at least from one moment to the other."""

    address: str
    since: float
    until: float


class Callers:
    """Threads that call all the time."""

    def __init__(self, channel: etcd_grpc.Channel) -> None:
        self._call = channel.unary_unary("/echo/UnaryUnary")
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(THREADS)]
        self.answered: list[Answered] = []
        self.failures: list[BaseException] = []

    def _run(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                address = who(self._call(b"x", timeout=30))
            except BaseException as error:  # noqa: BLE001 - whatever it is, the test tells it
                self.failures.append(error)
                return
            self.answered.append(Answered(address, began, time.monotonic()))

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in self._threads)


@pytest.fixture
def servers() -> Iterator[list[EchoServer]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(EchoServer()) for _ in range(4)]


@pytest.mark.parametrize("name", POLICIES)
def test_nothing_is_lost_and_nobody_is_called_who_has_left(
    etcd, service, servers, announce, raw, name
) -> None:
    addresses = [server.address for server in servers]
    for address in addresses:
        announce(address)
    target, seen, absences, rng = f"etcd:///{service}", set(), [], random.Random(1)
    with etcd_grpc.insecure_channel(target, etcd=etcd, policy=POLICIES[name]) as channel:

        def present() -> set[str]:
            """Who may be picked, once what the loop had to do has been done."""
            running = channel._dispatcher._running
            assert running is not None
            found = running.plane.session.run(
                lambda kept: [*kept.subchannels.values()], running.subchannels
            )
            running.plane.session.run(lambda _: None, None)  # the picker of this set is published now
            seen.update(found)
            return {s.endpoint.address for s in found if s.state is READY}

        channel.unary_unary("/echo/UnaryUnary")(b"x", timeout=10)
        wait_until(lambda: present() == set(addresses), "all are connected")
        with Callers(channel) as callers:
            end = time.monotonic() + SECONDS

            def enough() -> bool:
                long, often = time.monotonic() >= end, len(absences) >= 5
                return long and often and len(callers.answered) > 10 * THREADS

            while not enough() and not callers.failures:
                leaving = rng.choice(addresses)
                raw.delete(f"{service}/{leaving}")
                wait_until(lambda gone=leaving: gone not in present(), "it has left", 30)
                since = time.monotonic()
                time.sleep(0.05)  # calls go on
                absences.append(Absence(leaving, since, time.monotonic()))
                announce(leaving)
                wait_until(lambda back=leaving: back in present(), "it is back", 30)
        assert not callers.failures
        assert len({answer.address for answer in callers.answered}) == len(addresses)
        late = [
            (answer, absence)
            for absence in absences
            for answer in callers.answered
            if answer.address == absence.address
            and absence.since < answer.began
            and answer.ended < absence.until
        ]
        assert not late
        assert len(seen) > len(addresses), "those that came back are new"
        assert sum(len(subchannel.in_flight) for subchannel in seen) == 0
        assert not any(row.in_flight for row in channel.explain().endpoints)
