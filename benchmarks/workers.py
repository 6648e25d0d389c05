"""What a second worker brings: calls a second of ``etcd-grpc serve --workers 2`` over ``--workers 1``.

Each call takes 20 ms of CPU in Python, so one interpreter answers at most 50 a second, however many
threads it has.  Both families are up all the time and take turns; the ratio is taken turn by turn.
``workers_1_vs_1`` compares one worker with another in the same way: how far that is from 1 is the
method's error.
"""

from __future__ import annotations

import os
import statistics
import sys
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import grpc

import etcd_grpc
from benchmarks.outcome import BenchmarkError, Outcome, Size
from benchmarks.stage import ROOT
from benchmarks.worker_app import BURN
from etcd_grpc.devcluster import Cluster
from etcd_grpc.processes.children import Children

__all__ = ["run"]

_READY_TIMEOUT_S = 60.0
_CALL_TIMEOUT_S = 60.0
_CPU_MS = b"20"
_CALLERS = 8  # at any time more calls than workers, and far fewer than a queue would need


@dataclass(frozen=True, slots=True)
class _Scale:
    turns: int
    turn_s: float


_SCALES = {
    Size.FULL: _Scale(turns=11, turn_s=3.0),
    Size.QUICK: _Scale(turns=3, turn_s=1.5),
    Size.TINY: _Scale(turns=1, turn_s=0.3),
}


def run(size: Size) -> Outcome:
    """Measure two families of one worker, and one of two."""
    scale = _SCALES[size]
    with ExitStack() as stack:
        cluster = stack.enter_context(Cluster(1))  # it outlives the workers, which withdraw
        children = stack.enter_context(Children("benchmark workers"))
        families = [_family(stack, children, cluster, workers) for workers in (1, 2, 1)]
        rates: list[list[float]] = [[], [], []]
        for turn in range(scale.turns):
            order = range(3) if turn % 2 == 0 else range(2, -1, -1)
            for number in order:
                rates[number].append(_rate(families[number], scale.turn_s))
    one, two, other = rates
    results = {
        "workers_2_vs_1": _ratio(two, one),
        "workers_1_vs_1": _ratio(other, one),
        "workers_1_calls_per_s": round(statistics.median(one), 1),
        "workers_2_calls_per_s": round(statistics.median(two), 1),
    }
    return Outcome(
        results, {"turns": scale.turns, "callers": _CALLERS, "cpu_ms_per_call": int(_CPU_MS)}
    )


def _ratio(some: Sequence[float], others: Sequence[float]) -> float:
    return round(statistics.median(a / b for a, b in zip(some, others, strict=True)), 3)


def _family(
    stack: ExitStack, children: Children, cluster: Cluster, workers: int
) -> Callable[..., bytes]:
    """Start a family; returns a call to it, once every worker has answered one.

    Raises:
        BenchmarkError: They do not come up in time.
    """
    service = f"benchmark.{uuid.uuid4().hex[:8]}"
    program = [sys.executable, "-c", "from etcd_grpc.cli import main; main()"]
    options = ["--service", service, "--port", "0", "--workers", str(workers), "--settle", "0", "-q"]
    children.spawn(
        [*program, "serve", "benchmarks.worker_app:add_servicers", *options],
        cwd=ROOT,
        env={**os.environ, "ETCDCTL_ENDPOINTS": ",".join(cluster.endpoints)},
        stdout=sys.stderr.fileno(),
        stderr=sys.stderr.fileno(),
    )
    channel = stack.enter_context(
        etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=cluster.endpoints)
    )
    call: Any = channel.unary_unary(BURN)
    end = time.monotonic() + _READY_TIMEOUT_S
    seen: set[bytes] = set()
    while len(seen) < workers:
        if time.monotonic() > end:
            raise BenchmarkError(f"{len(seen)} of {workers} workers came up in {_READY_TIMEOUT_S:g} s")
        try:
            seen.add(call(b"0", timeout=_CALL_TIMEOUT_S, wait_for_ready=True))
        except grpc.RpcError as error:
            raise BenchmarkError(f"a worker did not answer: {error}") from error
    family: Callable[..., bytes] = call
    return family


def _rate(call: Callable[..., bytes], seconds: float) -> float:
    """Calls answered a second, with a fixed number of them under way."""
    end = time.monotonic() + seconds
    answered = [0] * _CALLERS

    def work(number: int) -> None:
        while time.monotonic() < end:
            call(_CPU_MS, timeout=_CALL_TIMEOUT_S)
            answered[number] += 1

    callers = [threading.Thread(target=work, args=(number,)) for number in range(_CALLERS)]
    began = time.monotonic()
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    return sum(answered) / (time.monotonic() - began)
