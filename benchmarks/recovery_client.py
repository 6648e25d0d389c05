"""A part of the sessions of the benchmark ``recovery``: ``python -m benchmarks.recovery_client ORDER``.

Each session watches one service and holds one registration.  The process prints a line when all of
that stands, watches it fail, and prints when each session followed etcd again (time.monotonic, which
is the same clock in all processes of a machine).  Then it stays until it is ended.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.outcome import BenchmarkError
from etcd_grpc.config import EtcdConfig
from etcd_grpc.model import Instance
from etcd_grpc.plane import ControlPlane
from etcd_grpc.resolver import Resolver, Subscription

__all__: list[str] = []

_TIMEOUT_S = 120.0
_LOOK_EVERY_S = 0.01
_IN_A_SERVICE = 10  # instances


class _Session:
    """One session with etcd, as a process of its own would have it."""

    def __init__(self, etcd: str, number: int, ttl_s: int) -> None:
        # Not by ``acquire``: sessions with equal configurations would be one.
        self._control = ControlPlane(EtcdConfig(endpoints=(etcd,)))
        session = self._control.session
        service = f"recovery.{number // _IN_A_SERVICE}"
        subscription = Subscription(session.loop, lambda _changes: None)
        self.resolver: Resolver = session.run(
            lambda it: self._control.subscribe(service, it), subscription
        )
        address = f"10.1.{number // 250}.{number % 250 + 1}:50051"
        self._instance = Instance(service, address, id=f"session-{number}")
        self._ttl_s = ttl_s
        self.down_at = self.up_at = 0.0

    def register(self) -> None:
        async def add() -> None:
            await self._control.registrar(self._ttl_s).add(self._instance, _TIMEOUT_S)

        self._control.session.submit(add()).result()

    def look(self, now: float) -> bool:
        """Note what has changed; return whether it was down and is up again."""
        if not self.down_at:
            self.down_at = 0.0 if self.resolver.connected else now
        elif not self.up_at:
            self.up_at = now if self.resolver.connected else 0.0
        return self.up_at > 0


def _measure(etcd: str, first: int, count: int, ttl_s: int) -> None:
    logging.getLogger("etcd_grpc").setLevel(logging.ERROR)  # an outage is what we are here for
    sessions = [_Session(etcd, first + number, ttl_s) for number in range(count)]
    for session in sessions:
        session.register()
    _until(lambda: all(session.resolver.connected for session in sessions), "all sessions follow etcd")
    print(json.dumps({"sessions": count}), flush=True)

    def all_up() -> bool:
        now = time.monotonic()
        return sum(session.look(now) for session in sessions) == count  # ``all`` would not look at all

    _until(all_up, "all sessions follow etcd again")
    print(json.dumps({"up_at": [session.up_at for session in sessions]}), flush=True)
    signal.pause()


def _until(condition: Callable[[], bool], what: str) -> None:
    """Look often until ``condition`` holds.

    Raises:
        BenchmarkError: It does not.
    """
    end = time.monotonic() + _TIMEOUT_S
    while not condition():
        if time.monotonic() > end:
            raise BenchmarkError(f"not within {_TIMEOUT_S:g} s: {what}")
        time.sleep(_LOOK_EVERY_S)


def _main(order: str) -> None:
    arguments: dict[str, Any] = json.loads(order)
    _measure(**arguments)


if __name__ == "__main__":
    _main(sys.argv[1])
