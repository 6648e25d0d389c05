"""32 threads pick and report while the set changes under them.

No exception, no ticket lost (in the end nothing is in flight), no pick of an endpoint that has left by
a picker that was read after the swap.  ``ETCD_GRPC_TEST_THREADS_S`` makes it run longer.
"""

from __future__ import annotations

import os
import random
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from tests.support.balancing import Node, endpoint

from etcd_grpc.balancer.balancer import Balancer
from etcd_grpc.balancer.base import Call, Picker
from etcd_grpc.balancer.policies import parse_policy
from etcd_grpc.balancer.stats_table import StatsTable
from etcd_grpc.balancer.ticket import Ticket

THREADS = 32
SECONDS = float(os.environ.get("ETCD_GRPC_TEST_THREADS_S", "0.8"))
EWMA = {"least_request": {"load": "peak_ewma"}}
POLICIES: dict[str, Any] = {
    "round_robin": "round_robin",
    "weighted_round_robin": "weighted_round_robin",
    "ring_hash": "ring_hash",
    "everything": {
        "outlier_detection": {
            "interval": "0.05s",
            "consecutiveBaseEjectionTime": "0.01s",
            "maxEjectionPercent": 40,
            "failurePercentageEjection": {"requestVolume": 5, "minimumHosts": 2},
            "childPolicy": [
                {"zone_aware": {"zone": "z0", "childPolicy": [{"slow_start": {"childPolicy": [EWMA]}}]}}
            ],
        }
    },
}
CODES = [grpc.StatusCode.OK] * 8 + [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED]


@pytest.fixture(autouse=True)
def _eager_thread_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


class Channel:
    """What a channel does with a balancer, without a network."""

    def __init__(self, policy: Any) -> None:
        self.table = StatsTable(time.monotonic)
        self.balancer = Balancer(parse_policy(policy), random.Random(1), time.monotonic)
        self.nodes: list[Node] = []
        self.seen: set[Node] = set()
        # Who may be picked, and the picker, in one assignment.
        self.published: tuple[frozenset[Node], Picker[Node]]
        self.wanted = threading.Event()
        self.stopped = False
        self.picked = 0

    def publish(self) -> None:
        picker = self.balancer.picker(self.nodes)
        assert picker is not None
        self.published = (frozenset(self.nodes), picker)

    def change(self, rng: random.Random) -> None:
        """A set of 3 to 30 endpoints, of which two always stay."""
        for node in self.nodes:
            self.table.leave(node.endpoint.key)
        numbers = [0, 1, *rng.sample(range(2, 40), rng.randint(1, 28))]
        found = [endpoint(f"e{n}", zone=f"z{n % 3}", weight=1 + n % 4) for n in numbers]
        self.nodes = [Node(e, self.table.enter(e)) for e in found]
        self.seen.update(self.nodes)
        self.publish()

    def run(self, seed: int) -> None:
        """One thread's calls."""
        rng, calls = random.Random(seed), 0
        wants_call, wants_outcomes = self.balancer.wants_call, self.balancer.wants_outcomes
        while not self.stopped:
            allowed, picker = self.published
            node = picker.pick(Call(str(calls)) if wants_call else None)
            assert node in allowed
            ticket = Ticket(node.stats, time.monotonic)
            if ticket.finish(rng.choice(CODES)) and wants_outcomes:
                self.wanted.set()
            calls += 1
            if not calls % 25:
                time.sleep(0.002)  # else 32 busy threads keep the one that changes the set from running
        self.picked += calls


@pytest.mark.parametrize("name", POLICIES)
def test_nothing_is_lost_and_nothing_is_picked_that_has_left(name: str) -> None:
    channel, rng = Channel(POLICIES[name]), random.Random(1)
    channel.change(rng)
    failures: list[BaseException] = []

    def run(seed: int) -> None:
        try:
            channel.run(seed)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test tells it
            failures.append(error)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(THREADS)]
    for thread in threads:
        thread.start()
    changes, end = 0, time.monotonic() + SECONDS
    while (time.monotonic() < end or changes < 10) and not failures:
        channel.change(rng)
        changes += 1
        if channel.wanted.wait(0.002):
            channel.wanted.clear()
        if channel.balancer.tick():
            channel.publish()
    channel.stopped = True
    for thread in threads:
        thread.join(30)
    assert not failures
    assert not any(thread.is_alive() for thread in threads)
    assert sum(len(node.stats.in_flight) for node in channel.seen) == 0
    assert channel.picked > THREADS
