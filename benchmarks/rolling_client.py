"""One client of the benchmark ``rolling_restart``: ``python -m benchmarks.rolling_client KIND ORDER``.

Calls at a steady rate from the line ``ready`` on, until its standard input ends; then it prints how
many calls it made and which of them failed.  No retry policy, no ``wait_for_ready``: what fails has
failed.  KIND is ``sync`` or ``aio``, our channels of both worlds, or ``plain``: grpcio alone, with
C-core's ``round_robin`` over addresses that it is told once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import threading
import time
from collections import Counter
from typing import Any

import grpc

import etcd_grpc
from benchmarks.served import ECHO

__all__: list[str] = []

_TIMEOUT_S = 10.0
_FIRST_S = 30.0
_SHOWN = 5
_BEHIND_S = 0.5  # who is so late does not catch up


class _Counts:
    """What became of the calls."""

    def __init__(self) -> None:
        self.calls = 0
        self.failed: Counter[str] = Counter()
        self.errors: list[str] = []

    def failure(self, error: Any, since: float) -> None:
        self.failed[error.code().name] += 1
        if len(self.errors) < _SHOWN:
            self.errors.append(f"{time.monotonic() - since:.2f} s: {error.code()}: {error.details()}")

    def report(self) -> str:
        return json.dumps({"calls": self.calls, "failed": self.failed, "errors": self.errors})


def _next_due(due: float, rate: float) -> float:
    return max(due + 1 / rate, time.monotonic() - _BEHIND_S)


def _channel(kind: str, service: str, etcd: str, addresses: list[str]) -> Any:
    if kind == "plain":
        policy = json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})
        options = [("grpc.service_config", policy), ("grpc.enable_retries", 0)]
        return grpc.insecure_channel(f"ipv4:{','.join(addresses)}", options=options)
    return etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd)


def _run(kind: str, service: str, etcd: str, addresses: list[str], rate: float) -> None:
    counts, stop = _Counts(), threading.Event()
    with _channel(kind, service, etcd, addresses) as channel:
        call = channel.unary_unary(ECHO)
        call(b"x", timeout=_FIRST_S, wait_for_ready=True)
        print("ready", flush=True)
        since = due = time.monotonic()

        def load() -> None:
            nonlocal due
            while not stop.is_set():
                counts.calls += 1
                try:
                    call(b"x" * 16, timeout=_TIMEOUT_S)
                except grpc.RpcError as error:
                    counts.failure(error, since)
                due = _next_due(due, rate)
                stop.wait(max(0.0, due - time.monotonic()))

        thread = threading.Thread(target=load)
        thread.start()
        sys.stdin.read()
        stop.set()
        thread.join()
    print(counts.report(), flush=True)


async def _run_aio(service: str, etcd: str, rate: float) -> None:
    counts = _Counts()
    under_way: set[asyncio.Task[None]] = set()
    async with etcd_grpc.aio.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel:
        call: Any = channel.unary_unary(ECHO)
        await call(b"x", timeout=_FIRST_S, wait_for_ready=True)
        print("ready", flush=True)
        since = due = time.monotonic()

        async def one() -> None:
            counts.calls += 1
            try:
                await call(b"x" * 16, timeout=_TIMEOUT_S)
            except grpc.aio.AioRpcError as error:
                counts.failure(error, since)

        ended = asyncio.ensure_future(asyncio.to_thread(sys.stdin.read))
        while not ended.done():
            task = asyncio.ensure_future(one())
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            due = _next_due(due, rate)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(ended), max(0.0, due - time.monotonic()))
        await asyncio.gather(*under_way)
    print(counts.report(), flush=True)


def _main(kind: str, order: str) -> None:
    arguments: dict[str, Any] = json.loads(order)
    if kind == "aio":
        asyncio.run(_run_aio(arguments["service"], arguments["etcd"], arguments["rate"]))
    else:
        _run(kind, **arguments)


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2])
