"""What one slow server does to the slowest calls, by the policy that spreads them.

Four servers, one of them twenty times slower than the others.  An open loop (``open_loop``) sends
calls at half of what the four can take together.  The same calls, at the same moments, go to the same
servers three times in one run: by C-core's own ``round_robin``, by ours, and by ``least_request`` with
peak EWMA under ``outlier_detection``.

``round_robin`` gives the slow server a quarter of the calls, which is more than it can take; its queue
grows until calls reach their deadline.  That is why the servers' times are sleeps, with a limit on how
many sleep at once: a queue as a real one, and no CPU for it.

The full run draws docs/plots/tail_latency.svg.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc

import etcd_grpc
import etcd_grpc.aio
from benchmarks.open_loop import Call, play, poisson
from benchmarks.outcome import BenchmarkError, Outcome, Size
from benchmarks.plot import Chart, Line
from benchmarks.stage import ROOT, Writer, start_servers
from etcd_grpc.devcluster import Cluster
from etcd_grpc.processes.children import Children

__all__ = ["run"]

_PLOT = ROOT / "docs" / "plots" / "tail_latency.svg"
_SERVICE = "tail"
_METHOD = "/benchmark/Timed"
_FAST_MS, _SLOWED, _FAST, _CONCURRENCY = 10, 20, 3, 2
_DEADLINE_S = 5.0  # a call that gets no answer within it counts with all of it
_READY_TIMEOUT_S = 20.0
_SEED = 1
_SHOWN_MS = 400  # how far the plot reaches

# With k draws of four the slow server is the only one drawn in 4^-k of the calls: for k = 2 in 6 %,
# which is more than it can take.
_EWMA = [
    {
        "outlier_detection": {
            "childPolicy": [{"least_request": {"load": "peak_ewma", "choiceCount": 6}}],
        }
    }
]
_CORE = '{"loadBalancingConfig": [{"round_robin": {}}]}'


@dataclass(frozen=True, slots=True)
class _Scale:
    seconds: float
    settle_s: float


_SCALES = {
    Size.FULL: _Scale(seconds=30, settle_s=2),
    Size.QUICK: _Scale(seconds=6, settle_s=0.5),
    Size.TINY: _Scale(seconds=0.5, settle_s=0.1),
}


def run(size: Size) -> Outcome:
    """Measure the three, one after the other."""
    scale = _SCALES[size]
    each = _CONCURRENCY * 1000 / _FAST_MS
    rate = (_FAST * each + each / _SLOWED) / 2
    arrivals = poisson(rate, scale.seconds, _SEED)
    with contextlib.ExitStack() as stack:
        children = stack.enter_context(Children("benchmark servers"))
        cluster = stack.enter_context(Cluster(1))
        times_ms = [_FAST_MS] * _FAST + [_FAST_MS * _SLOWED]
        commands = [("benchmarks.timed_server", str(ms), str(_CONCURRENCY)) for ms in times_ms]
        addresses = [f"127.0.0.1:{port}" for port in start_servers(children, commands)]
        writer = stack.enter_context(Writer(cluster.endpoints))
        for address in addresses:
            writer.put(_SERVICE, address)
        ended = asyncio.run(_contest(cluster.endpoints, addresses, arrivals, scale))
    if size is Size.FULL:
        _PLOT.parent.mkdir(exist_ok=True)
        _PLOT.write_text(_draw(ended), encoding="utf-8")
    counts = {"calls": len(arrivals), "calls_per_s": round(rate), "servers": len(addresses)}
    return Outcome(_figures(ended), counts | {"slowed_times": _SLOWED})


async def _contest(
    etcd: Sequence[str], addresses: Sequence[str], arrivals: Sequence[float], scale: _Scale
) -> dict[str, list[Call]]:
    core = grpc.aio.insecure_channel("ipv4:" + ",".join(addresses), (("grpc.service_config", _CORE),))
    target = f"etcd:///{_SERVICE}"
    contenders: Mapping[str, grpc.aio.Channel] = {
        "core_round_robin": core,
        "round_robin": etcd_grpc.aio.insecure_channel(target, etcd=etcd),
        "peak_ewma": etcd_grpc.aio.insecure_channel(target, etcd=etcd, policy=_EWMA),
    }
    ended = {}
    for name, channel in contenders.items():
        call: Any = channel.unary_unary(_METHOD)
        async with channel:
            await _connected(channel, call, len(addresses))
            await asyncio.sleep(scale.settle_s)
            ended[name] = await play(lambda call=call: call(b"", timeout=_DEADLINE_S), arrivals)  # type: ignore[misc]
        print(f"{name}: p99 {_percentile_ms(ended[name], 99):.0f} ms", file=sys.stderr)
        await asyncio.sleep(scale.settle_s)
    return ended


async def _connected(channel: grpc.aio.Channel, call: Any, count: int) -> None:
    """Wait until calls can go to every server.

    Raises:
        BenchmarkError: They cannot.
    """
    await call(b"", timeout=_READY_TIMEOUT_S, wait_for_ready=True)
    loop = asyncio.get_running_loop()
    end = loop.time() + _READY_TIMEOUT_S
    if not isinstance(channel, etcd_grpc.aio.Channel):
        await asyncio.sleep(0.5)  # C-core does not tell; on the loopback this is long
        return
    while True:
        explained = channel.explain()
        states = [row.state for row in explained.endpoints] if explained else []
        if states.count("READY") == count:
            return
        if loop.time() > end:
            raise BenchmarkError(f"not all of {count} servers were connected in time: {states}")
        await asyncio.sleep(0.01)


def _figures(ended: Mapping[str, Sequence[Call]]) -> dict[str, float]:
    core_ms = _percentile_ms(ended["core_round_robin"], 99)
    results: dict[str, float] = {
        "p99_ratio_vs_round_robin": round(_percentile_ms(ended["peak_ewma"], 99) / core_ms, 4),
        "p99_ratio_of_round_robins": round(_percentile_ms(ended["round_robin"], 99) / core_ms, 4),
    }
    for name, calls in ended.items():
        for percent in (50, 99):
            results[f"{name}_p{percent}_ms"] = _percentile_ms(calls, percent)
        results[f"{name}_failed"] = sum(bool(call.failure) for call in calls)
    return results


def _percentile_ms(calls: Sequence[Call], percent: int) -> float:
    latencies = [call.latency_s for call in calls]
    return round(statistics.quantiles(latencies, n=100, method="inclusive")[percent - 1] * 1000, 2)


def _draw(ended: Mapping[str, Sequence[Call]]) -> str:
    """How many of the calls were answered within which time."""
    names = {
        "core_round_robin": "C-core's round_robin",
        "round_robin": "our round_robin",
        "peak_ewma": "least_request, peak EWMA",
    }
    return Chart(
        "One of four servers is 20 times slower: calls answered within a time",
        "milliseconds since the call was due",
        "percent of the calls",
        [Line(names[name], list(_distribution(calls)), steps=True) for name, calls in ended.items()],
    ).svg()


def _distribution(calls: Sequence[Call]) -> Iterator[tuple[float, float]]:
    latencies = sorted(call.latency_s * 1000 for call in calls if not call.failure)
    count, within = len(calls), 0
    for ms in range(0, _SHOWN_MS + 1, 2):
        while within < len(latencies) and latencies[within] <= ms:
            within += 1
        yield float(ms), 100 * within / count
