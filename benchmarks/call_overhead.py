"""What a call costs on our channel, against gRPC's own channels to the same servers.

Unary calls of 16 bytes, one after another, without deadline.  Both sides have as many connections of
their own (``grpc.use_local_subchannel_pool``), live in the same process beside the same threads, and
take turns (see ``alternation``).  Every round opens new channels on both sides, in turn in either
order, so that a lucky placement of one connection on the servers' threads does not decide the figure.

``control`` compares two plain channels in the same way: how far that is from 1 is the method's error.

The full run draws docs/plots/call_overhead.svg.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import grpc

import etcd_grpc
from benchmarks.alternation import MIN_PAIRS, Pairs, without_gc
from benchmarks.echo_server import WHERE
from benchmarks.outcome import BenchmarkError, Outcome, Size
from benchmarks.plot import Chart, Line
from benchmarks.stage import ROOT, Writer, start_echo_servers
from etcd_grpc.devcluster import Cluster
from etcd_grpc.processes.children import Children

__all__ = ["run"]

_ECHO = "/benchmark/Echo"
_PAYLOAD = b"sixteen bytes ok"
_READY_TIMEOUT_S = 20.0
_OWN_CONNECTIONS = (("grpc.use_local_subchannel_pool", 1),)  # what our channel gives to its own
_ROUND_ROBIN = (("grpc.service_config", '{"loadBalancingConfig": [{"round_robin": {}}]}'),)

_PLOT = ROOT / "docs" / "plots" / "call_overhead.svg"
_DRAWN = ("sync_control", "sync_vs_plain", "sync_full_vs_plain", "aio_vs_plain", "aio_full_vs_plain")

# Every call is timed, counted and judged.
_FULL = [{"outlier_detection": {"childPolicy": [{"least_request": {"load": "peak_ewma"}}]}}]


@dataclass(frozen=True, slots=True)
class _Scale:
    """How often; ``budget_s`` ends a round early on a machine that is slow or busy."""

    rounds: int  # even, as half of them open ours first
    pairs: int  # in each round
    calls: int  # in each turn
    warm_up: int
    budget_s: float


_SCALES = {
    Size.FULL: _Scale(rounds=10, pairs=24, calls=100, warm_up=400, budget_s=6),
    Size.QUICK: _Scale(rounds=4, pairs=14, calls=50, warm_up=100, budget_s=1),
    Size.TINY: _Scale(rounds=2, pairs=4, calls=2, warm_up=5, budget_s=10),
}


@dataclass(frozen=True, slots=True)
class _Opened:
    """A channel in use: ``turn`` makes calls and returns microseconds a call, ``where`` asks a port."""

    turn: Callable[[int], float]
    where: Callable[[], bytes]


Open = Callable[[], AbstractContextManager[_Opened]]


def run(size: Size) -> Outcome:
    """Measure sync and asyncio, one endpoint and three."""
    scale = _SCALES[size]
    counts = {"calls_per_turn": scale.calls, "rounds": scale.rounds}
    results: dict[str, float] = {}
    measured: dict[str, Pairs] = {}
    with contextlib.ExitStack() as stack:
        children = stack.enter_context(Children("benchmark servers"))
        cluster = stack.enter_context(Cluster(1))
        ports = start_echo_servers(children, 3)
        addresses = [f"127.0.0.1:{port}" for port in ports]
        with Writer(cluster.endpoints) as writer:
            writer.put("one", addresses[0])
            for address in addresses:
                writer.put("three", address)
        targets = _Targets(cluster.endpoints, addresses)
        aio = _Aio(targets, stack.enter_context(asyncio.Runner()))
        for name, world in (("sync", _Sync(targets)), ("aio", aio)):
            for figure, ours, theirs, endpoints in (
                ("vs_plain", world.ours("one"), world.plain, 1),
                ("full_vs_plain", world.ours("one", _FULL), world.plain, 1),
                ("vs_round_robin", world.ours("three"), world.round_robin, 3),
                ("full_vs_round_robin", world.ours("three", _FULL), world.round_robin, 3),
                ("control", world.plain, world.plain, 1),
            ):
                pairs = _compare(ours, theirs, endpoints, scale)
                found = _figures(f"{name}_{figure}", pairs)
                print(", ".join(f"{key} {value}" for key, value in found.items()), file=sys.stderr)
                results |= found
                measured[f"{name}_{figure}"] = pairs
                counts[f"{name}_{figure}_pairs"] = len(pairs)
    if size is Size.FULL:
        _PLOT.parent.mkdir(exist_ok=True)
        _PLOT.write_text(_draw(measured), encoding="utf-8")
    return Outcome(results, counts)


def _draw(measured: Mapping[str, Pairs]) -> str:
    """The middle half of the pairs, from the cheapest of ours to the dearest."""
    lines = []
    for name in _DRAWN:
        ratios = measured[name].ratios()
        points = [(100 * n / len(ratios), ratio) for n, ratio in enumerate(ratios)]
        lines.append(Line(name, [(x, y) for x, y in points if 25 <= x <= 75]))
    return Chart(
        "A call through our channel, against one through a plain channel",
        "percent of the pairs of turns with a lower ratio",
        "ratio of the time a call takes",
        lines,
        y_from=None,
    ).svg()


def _figures(name: str, pairs: Pairs) -> dict[str, float]:
    low, high = pairs.interval()
    ours_us, theirs_us = pairs.medians_us()
    return {
        name: round(pairs.ratio(), 4),
        f"{name}_low": round(low, 4),
        f"{name}_high": round(high, 4),
        f"{name}_ours_us": round(ours_us, 1),
        f"{name}_theirs_us": round(theirs_us, 1),
    }


def _compare(ours: Open, theirs: Open, endpoints: int, scale: _Scale) -> Pairs:
    pairs = Pairs()
    fewest = math.ceil(MIN_PAIRS / scale.rounds)
    for number in range(scale.rounds):
        with contextlib.ExitStack() as stack:
            if number % 2:  # neither is always the first to be there, either
                b, a = stack.enter_context(theirs()), stack.enter_context(ours())
            else:
                a, b = stack.enter_context(ours()), stack.enter_context(theirs())
            for opened in (a, b):
                _await_all(opened, endpoints)
                opened.turn(scale.warm_up)
            end = time.monotonic() + scale.budget_s
            with without_gc():
                for made in range(scale.pairs):
                    if made >= fewest and time.monotonic() > end:
                        break
                    _take_turns(a, b, scale.calls, pairs)
    return pairs


def _take_turns(a: _Opened, b: _Opened, calls: int, pairs: Pairs) -> None:
    if len(pairs) % 2:
        b_us = b.turn(calls)
        a_us = a.turn(calls)
    else:
        a_us = a.turn(calls)
        b_us = b.turn(calls)
    pairs.add(a_us, b_us)


def _await_all(opened: _Opened, endpoints: int) -> None:
    """Call until every endpoint takes its share, in turn.

    Raises:
        BenchmarkError: It never does.
    """
    end = time.monotonic() + _READY_TIMEOUT_S
    while len({opened.where() for _ in range(endpoints)}) < endpoints:
        if time.monotonic() > end:
            raise BenchmarkError(f"not all of {endpoints} endpoints were connected in time")
        time.sleep(0.01)


@dataclass(frozen=True, slots=True)
class _Targets:
    """What channels are opened to."""

    etcd: Sequence[str]
    addresses: Sequence[str]

    @property
    def all(self) -> str:
        """C-core's own way to write several addresses."""
        return "ipv4:" + ",".join(self.addresses)


class _Sync:
    """Opens synchronous channels."""

    def __init__(self, targets: _Targets) -> None:
        self._targets = targets

    def ours(self, service: str, policy: Any = None) -> Open:
        etcd, target = self._targets.etcd, f"etcd:///{service}"
        return lambda: self._opened(etcd_grpc.insecure_channel(target, etcd=etcd, policy=policy))

    def plain(self) -> AbstractContextManager[_Opened]:
        return self._opened(grpc.insecure_channel(self._targets.addresses[0], _OWN_CONNECTIONS))

    def round_robin(self) -> AbstractContextManager[_Opened]:
        options = _OWN_CONNECTIONS + _ROUND_ROBIN
        return self._opened(grpc.insecure_channel(self._targets.all, options))

    @contextlib.contextmanager
    def _opened(self, channel: grpc.Channel) -> Iterator[_Opened]:
        with channel:
            where: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(WHERE)
            echo: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_ECHO)
            yield _Opened(
                turn=lambda calls: _sync_turn(echo, calls),
                where=lambda: where(b"", timeout=_READY_TIMEOUT_S, wait_for_ready=True),
            )


def _sync_turn(call: Callable[[bytes], bytes], calls: int) -> float:
    began = time.perf_counter()
    for _ in range(calls):
        call(_PAYLOAD)
    return (time.perf_counter() - began) / calls * 1e6


class _Aio:
    """Opens asyncio channels; a turn runs the event loop for as long as it lasts."""

    def __init__(self, targets: _Targets, runner: asyncio.Runner) -> None:
        self._targets = targets
        self._runner = runner

    def ours(self, service: str, policy: Any = None) -> Open:
        etcd, target = self._targets.etcd, f"etcd:///{service}"
        return lambda: self._opened(
            lambda: etcd_grpc.aio.insecure_channel(target, etcd=etcd, policy=policy)
        )

    def plain(self) -> AbstractContextManager[_Opened]:
        address = self._targets.addresses[0]
        return self._opened(lambda: grpc.aio.insecure_channel(address, _OWN_CONNECTIONS))

    def round_robin(self) -> AbstractContextManager[_Opened]:
        options = _OWN_CONNECTIONS + _ROUND_ROBIN
        return self._opened(lambda: grpc.aio.insecure_channel(self._targets.all, options))

    @contextlib.contextmanager
    def _opened(self, make: Callable[[], grpc.aio.Channel]) -> Iterator[_Opened]:
        run = self._runner.run

        async def open_on_loop() -> grpc.aio.Channel:
            return make()

        async def ask(call: Callable[..., Awaitable[bytes]]) -> bytes:
            return await call(b"", timeout=_READY_TIMEOUT_S, wait_for_ready=True)

        channel = run(open_on_loop())
        try:
            where: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(WHERE)
            echo: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_ECHO)
            yield _Opened(
                turn=lambda calls: run(_aio_turn(echo, calls)),
                where=lambda: run(ask(where)),
            )
        finally:
            run(channel.close())


async def _aio_turn(call: Callable[[bytes], Awaitable[bytes]], calls: int) -> float:
    began = time.perf_counter()
    for _ in range(calls):
        await call(_PAYLOAD)
    return (time.perf_counter() - began) / calls * 1e6
