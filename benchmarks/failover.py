"""What callers notice when a server dies, and when all are restarted one after the other.

Three servers, an open loop (``open_loop``) of 500 calls a second:

- *Killed*: one is killed (SIGKILL) under a channel with a retry policy.  No call may fail, and what the
  longest call after the kill took is compared with the longest calls of ordinary half seconds before.
- *Rolling restart*: each is told to leave (SIGTERM) and replaced, under a channel without any retry
  policy.  No call may fail.

Both with an asyncio channel and with a synchronous one.  The full run draws docs/plots/failover.svg.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import etcd_grpc
import etcd_grpc.aio
from benchmarks.open_loop import Call, even, play
from benchmarks.outcome import BenchmarkError, Outcome, Size
from benchmarks.plot import Chart, Line, Mark
from benchmarks.stage import ROOT, port_of, start_server
from etcd_grpc.devcluster import Cluster
from etcd_grpc.processes.children import Children

__all__ = ["run"]

_PLOT = ROOT / "docs" / "plots" / "failover.svg"
_SERVICE = "failover"
_METHOD = "/benchmark/Echo"
_SERVERS = 3
_THREADS = 16  # of the synchronous client
_TIMEOUT_S = 10.0
_WINDOW_S = 0.5
_PLOT_WINDOW_S = 0.1
_RETRY = {
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 3,
                "initialBackoff": "0.005s",
                "maxBackoff": "0.05s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}


@dataclass(frozen=True, slots=True)
class _Scale:
    kills: int  # of each kind of channel
    rate: float  # calls a second
    before_s: float
    after_s: float


_SCALES = {
    Size.FULL: _Scale(kills=5, rate=500, before_s=5, after_s=3),
    Size.QUICK: _Scale(kills=1, rate=500, before_s=2.5, after_s=1.5),
    Size.TINY: _Scale(kills=1, rate=50, before_s=1, after_s=0.5),
}


@dataclass(frozen=True, slots=True)
class _Kill:
    """One server killed under load."""

    killed_s: float  # since the beginning
    calls: Sequence[Call]

    def before_ms(self) -> float:
        """The median of the longest calls of ordinary windows."""
        maxima: dict[int, float] = {}
        for call in self.calls:
            if call.due_s + call.latency_s < self.killed_s:
                window = int(call.due_s / _WINDOW_S)
                maxima[window] = max(maxima.get(window, 0.0), call.latency_s)
        return statistics.median(maxima.values()) * 1000

    def longest_ms(self) -> float:
        """The longest call that had not ended at the kill, or began later."""
        return 1000 * max(
            call.latency_s for call in self.calls if call.due_s + call.latency_s >= self.killed_s
        )


def run(size: Size) -> Outcome:
    """Measure both, in both worlds."""
    scale = _SCALES[size]
    results: dict[str, float] = {}
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(Cluster(1))  # ends after those that are registered there
        children = stack.enter_context(Children("benchmark servers"))
        servers = _Servers(children, cluster.endpoints[0])
        for name, world in (("aio", _aio), ("sync", _sync)):
            kills = [asyncio.run(_kill(servers, world, scale)) for _ in range(scale.kills)]
            rolled = asyncio.run(_roll(servers, world, scale))
            found = _figures(name, kills, rolled)
            print(", ".join(f"{key} {value}" for key, value in found.items()), file=sys.stderr)
            results |= found
            if size is Size.FULL and name == "aio":
                _PLOT.parent.mkdir(exist_ok=True)
                _PLOT.write_text(_draw(kills[-1]), encoding="utf-8")
    counts = {"kills": 2 * scale.kills, "calls_per_s": round(scale.rate), "servers": _SERVERS}
    return Outcome(results, counts)


def _figures(name: str, kills: Sequence[_Kill], rolled: Sequence[Call]) -> dict[str, float]:
    failed = sum(bool(call.failure) for kill in kills for call in kill.calls)
    worst = max(kills, key=lambda kill: kill.longest_ms() - kill.before_ms())
    return {
        f"{name}_failed_calls": failed,
        f"{name}_longest_over_ms": round(worst.longest_ms() - worst.before_ms(), 1),
        f"{name}_longest_ms": round(worst.longest_ms(), 1),
        f"{name}_before_ms": round(worst.before_ms(), 1),
        f"{name}_rolling_failed_calls": sum(bool(call.failure) for call in rolled),
        f"{name}_rolling_longest_ms": round(max(call.latency_s for call in rolled) * 1000, 1),
    }


class _Servers:
    """Three registered servers, which are replaced when they have ended."""

    def __init__(self, children: Children, etcd: str) -> None:
        self.etcd = etcd
        self._children = children
        self._running: list[subprocess.Popen[bytes]] = []
        self.fill()

    def fill(self) -> None:
        """Start as many as are missing."""
        missing = _SERVERS - len(self._running)
        new = [
            start_server(self._children, "benchmarks.instance", _SERVICE, self.etcd)
            for _ in range(missing)
        ]
        for process in new:
            port_of(process)
        self._running += new

    def kill(self) -> None:
        """End the oldest, without a word."""
        self._running.pop(0).kill()

    def restart(self) -> None:
        """Tell the oldest to leave; when it has, start another one."""
        process = self._running.pop(0)
        process.terminate()
        process.wait(_TIMEOUT_S * 2)
        self.fill()


# A channel in use, in either world: makes one call.
_World = Callable[[str, Any], contextlib.AbstractAsyncContextManager[Callable[[], Awaitable[object]]]]


@contextlib.asynccontextmanager
async def _aio(etcd: str, config: Any) -> AsyncIterator[Callable[[], Awaitable[object]]]:
    target = f"etcd:///{_SERVICE}"
    async with etcd_grpc.aio.insecure_channel(target, etcd=etcd, service_config=config) as channel:
        call: Any = channel.unary_unary(_METHOD)
        await _connected(channel, lambda: call(b"", timeout=_TIMEOUT_S, wait_for_ready=True))
        yield lambda: call(b"", timeout=_TIMEOUT_S)


@contextlib.asynccontextmanager
async def _sync(etcd: str, config: Any) -> AsyncIterator[Callable[[], Awaitable[object]]]:
    target = f"etcd:///{_SERVICE}"
    run_in = asyncio.get_running_loop().run_in_executor
    with (
        ThreadPoolExecutor(_THREADS) as pool,
        etcd_grpc.insecure_channel(target, etcd=etcd, service_config=config) as channel,
    ):
        call: Any = channel.unary_unary(_METHOD)
        first = functools.partial(call, b"", timeout=_TIMEOUT_S, wait_for_ready=True)
        await _connected(channel, lambda: run_in(pool, first))
        yield lambda: run_in(pool, functools.partial(call, b"", timeout=_TIMEOUT_S))


async def _connected(
    channel: etcd_grpc.Channel | etcd_grpc.aio.Channel, call: Callable[[], Awaitable[object]]
) -> None:
    """Wait until all servers are connected, and have been called.

    Raises:
        BenchmarkError: They are not.
    """
    end = time.monotonic() + 2 * _TIMEOUT_S
    while True:
        await call()
        explained = channel.explain()
        rows = explained.endpoints if explained else ()
        if sum(row.state == "READY" and row.picks > 0 for row in rows) >= _SERVERS:
            return
        if time.monotonic() > end:
            raise BenchmarkError(f"not all of {_SERVERS} servers were connected in time: {explained}")
        await asyncio.sleep(0.005)


async def _kill(servers: _Servers, world: _World, scale: _Scale) -> _Kill:
    await asyncio.to_thread(servers.fill)
    loop = asyncio.get_running_loop()
    async with world(servers.etcd, _RETRY) as call:
        began = loop.time()
        arrivals = even(scale.rate, scale.before_s + scale.after_s)
        playing = asyncio.create_task(play(call, arrivals))
        await asyncio.sleep(scale.before_s)
        killed_s = loop.time() - began
        servers.kill()
        return _Kill(killed_s, await playing)


async def _roll(servers: _Servers, world: _World, scale: _Scale) -> list[Call]:
    """Restart all, one after the other, and call meanwhile."""
    await asyncio.to_thread(servers.fill)
    calls: list[Call] = []
    async with world(servers.etcd, None) as call:
        restarting = asyncio.create_task(asyncio.to_thread(_restart_all, servers))
        while not restarting.done():
            calls += await play(call, even(scale.rate, 1.0))
        await restarting
        calls += await play(call, even(scale.rate, 1.0))
    return calls


def _restart_all(servers: _Servers) -> None:
    for _ in range(_SERVERS):
        servers.restart()


def _draw(kill: _Kill) -> str:
    """The longest and the median call of each tenth of a second around the kill."""
    windows: dict[int, list[float]] = {}
    for call in kill.calls:
        windows.setdefault(int(call.due_s / _PLOT_WINDOW_S), []).append(call.latency_s * 1000)
    lines: Mapping[str, list[tuple[float, float]]] = {"longest call": [], "median": []}
    for window, latencies in itertools.islice(sorted(windows.items()), 5, None):
        at = window * _PLOT_WINDOW_S - kill.killed_s
        lines["longest call"].append((at, max(latencies)))
        lines["median"].append((at, statistics.median(latencies)))
    return Chart(
        "One of three servers is killed under 500 calls a second, with a retry policy",
        "seconds since the kill",
        "milliseconds",
        [Line(name, points, steps=True) for name, points in lines.items()],
        [Mark(0, "SIGKILL")],
    ).svg()
