"""The measured process of the benchmark ``scale``: ``python -m benchmarks.scale_client ORDER``.

It is given the work that an application's event loop would have: a subscription that keeps a view, or
an asyncio channel.  It prints one JSON object when it knows all endpoints, gets a SIGUSR1 when
changing them begins and another one when it has ended, and prints a second object with what it saw.

The last change gives one endpoint the weight ``LAST``.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any

import grpc

import etcd_grpc
import etcd_grpc.aio
from benchmarks.echo_server import WHERE
from benchmarks.inside import pickable
from benchmarks.outcome import BenchmarkError
from benchmarks.usage import late, percentile_ms, rss_mb
from etcd_grpc import plane
from etcd_grpc.model import Change, Endpoint, Put
from etcd_grpc.resolver import Subscription

__all__ = ["LAST", "digest"]

LAST = 777.0
_TIMEOUT_S = 60.0
_LOOK_EVERY_S = 0.002
_REST_S = 1.0


def digest(endpoints: Iterable[tuple[str, float]]) -> str:
    """One word for a set of addresses with their weights."""
    return hashlib.sha256(repr(sorted(endpoints)).encode()).hexdigest()


class _View:
    """What a subscriber on the running loop knows."""

    def __init__(self, etcd: list[str], service: str) -> None:
        self._service = service
        self._control = plane.acquire(etcd_grpc.EtcdConfig.of(etcd))
        self._session = self._control.session
        self._subscription = Subscription(asyncio.get_running_loop(), self._changed)
        self.endpoints: dict[str, Endpoint] = {}
        self.last_at = 0.0  # when the last change was known
        self._session.loop.call_soon_threadsafe(
            self._control.subscribe, self._service, self._subscription
        )

    def _changed(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if isinstance(change, Put):
                self.endpoints[change.key] = change.endpoint
                if change.endpoint.weight == LAST:
                    self.last_at = time.monotonic()
            else:
                self.endpoints.pop(change.key, None)

    @contextlib.asynccontextmanager
    async def control_lag(self) -> AsyncIterator[list[float]]:
        """How late the control loop is within the block."""
        found: list[float] = []
        task = self._session.submit(late(found))
        try:
            yield found
        finally:
            task.cancel()

    def close(self) -> None:
        self._session.run(
            lambda subscription: self._control.unsubscribe(self._service, subscription),
            self._subscription,
        )
        self._control.release()


async def _measure_view(etcd: list[str], service: str, count: int) -> None:
    stage = _Stage()
    imported_mb = rss_mb()
    began = time.monotonic()
    view = _View(etcd, service)
    try:
        async with view.control_lag() as first_lag:
            await _until(lambda: len(view.endpoints) >= count, "the first view is complete")
            resolve_s = time.monotonic() - began
            await asyncio.sleep(_REST_S)
        mb = rss_mb()
        _say(
            resolve_s=round(resolve_s, 3),
            rss_mb=round(mb, 2),
            rss_mb_since_import=round(mb - imported_mb, 2),
            control_lag_first_view_ms=round(max(first_lag) * 1000, 1),
        )
        async with view.control_lag() as control_lag, _lag() as lag:
            await stage.turn()
            await stage.turn()
            await _until(lambda: view.last_at > 0, "the last change is known")
        _say(
            last_at=view.last_at,
            digest=digest((e.address, e.weight) for e in view.endpoints.values()),
            lag_p99_ms=percentile_ms(lag, 99),
            control_lag_p99_ms=percentile_ms(control_lag, 99),
            rss_after_changes_mb=round(rss_mb(), 2),
        )
    finally:
        view.close()


async def _measure_channel(etcd: list[str], service: str, count: int) -> None:
    stage = _Stage()
    imported_mb = rss_mb()
    began = time.monotonic()
    async with etcd_grpc.aio.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(WHERE)
        async with _lag() as first_lag:
            await call(b"", timeout=_TIMEOUT_S, wait_for_ready=True)
            first_call_s = time.monotonic() - began
            await _until(lambda: len(pickable(channel)) >= count, "all endpoints are connected")
            connect_s = time.monotonic() - began
        await asyncio.sleep(_REST_S)
        _say(
            channel_first_call_s=round(first_call_s, 3),
            channel_connect_s=round(connect_s, 3),
            channel_lag_connecting_ms=percentile_ms(first_lag, 99),
            channel_lag_connecting_max_ms=round(max(first_lag) * 1000, 1),
            channel_rss_mb_since_import=round(rss_mb() - imported_mb, 2),
        )
        await stage.turn()
        async with _lag() as lag, _pickers(channel) as times:
            await stage.turn()
            await _until(lambda: _knows_last(channel), "the last change is known")
            last_at = time.monotonic()
        _say(
            last_at=last_at,
            channel_lag_p99_ms=percentile_ms(lag, 99),
            picker_updates_per_s=_rate(times),
        )


def _knows_last(channel: Any) -> bool:
    return any(subchannel.endpoint.weight == LAST for subchannel in pickable(channel))


def _rate(times: Sequence[float]) -> float:
    """How often a second, from the first time to the last."""
    return round((len(times) - 1) / (times[-1] - times[0]), 1) if len(times) > 1 else 0.0


@contextlib.asynccontextmanager
async def _lag() -> AsyncIterator[list[float]]:
    """How late the running loop is within the block."""
    found: list[float] = []
    task = asyncio.create_task(late(found))
    try:
        yield found
    finally:
        task.cancel()


@contextlib.asynccontextmanager
async def _pickers(channel: Any) -> AsyncIterator[list[float]]:
    """When the channel got a new picker within the block."""
    times: list[float] = []

    async def look() -> None:
        known = channel._dispatcher._picker
        while True:
            if channel._dispatcher._picker is not known:
                known = channel._dispatcher._picker
                times.append(time.monotonic())
            await asyncio.sleep(_LOOK_EVERY_S)

    task = asyncio.create_task(look())
    try:
        yield times
    finally:
        task.cancel()


async def _until(condition: Callable[[], bool], what: str) -> None:
    """Look often until ``condition`` holds.

    Raises:
        BenchmarkError: It does not.
    """
    end = time.monotonic() + _TIMEOUT_S
    while not condition():
        if time.monotonic() > end:
            raise BenchmarkError(f"not within {_TIMEOUT_S:g} s: {what}")
        await asyncio.sleep(_LOOK_EVERY_S)


class _Stage:
    """Tells by SIGUSR1 that it has come to the next turn."""

    def __init__(self) -> None:
        self._turns: asyncio.Queue[None] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, self._turns.put_nowait, None)

    async def turn(self) -> None:
        """Wait for the next turn."""
        await self._turns.get()


def _say(**figures: float | str) -> None:
    print(json.dumps(figures), flush=True)


def _main(order: str) -> None:
    arguments: dict[str, Any] = json.loads(order)
    measure = _measure_channel if arguments.pop("channel") else _measure_view
    asyncio.run(measure(**arguments))


if __name__ == "__main__":
    _main(sys.argv[1])
