"""The measured process of the benchmark ``endpoints``: ``python -m benchmarks.endpoints_client ORDER``.

The process that a channel comes into is one that uses gRPC already: the baseline is taken while one
plain channel is open on which one call was made.  gRPC starts six threads or so for the first channel
of a process and shares them among all; they are not the balanced channel's.  The growth since the
imports, these threads included, is told beside it.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

import etcd_grpc
from benchmarks.echo_server import WHERE
from benchmarks.inside import pickable
from benchmarks.outcome import BenchmarkError

__all__: list[str] = []

_TIMEOUT_S = 60.0
_IDLE_S = 2.0  # meanwhile threads that only helped to connect may end, and buffers be freed


@dataclass(frozen=True, slots=True)
class _Usage:
    """What the kernel says of this process."""

    rss_mb: float
    threads: int

    @classmethod
    def now(cls) -> _Usage:
        gc.collect()
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        fields = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
        return cls(int(fields["VmRSS"][0]) / 1024, int(fields["Threads"][0]))


def _measure(etcd: list[str], service: str, count: int, plain: str) -> dict[str, float]:
    imported = _Usage.now()
    with grpc.insecure_channel(plain) as other:
        warm: grpc.UnaryUnaryMultiCallable[bytes, bytes] = other.unary_unary(WHERE)
        warm(b"", timeout=_TIMEOUT_S, wait_for_ready=True)
        before = _Usage.now()
        began = time.monotonic()
        with etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel:
            call = channel.unary_unary(WHERE)
            call(b"", timeout=_TIMEOUT_S, wait_for_ready=True)
            first_call_s = time.monotonic() - began
            while len(pickable(channel)) < count:
                if time.monotonic() - began > _TIMEOUT_S:
                    raise BenchmarkError(f"{len(pickable(channel))} of {count} connected in time")
                time.sleep(0.005)
            connect_s = time.monotonic() - began
            for _ in range(count):  # what a first call to an endpoint leaves behind counts as well
                call(b"", timeout=_TIMEOUT_S)
            busy_s = time.process_time()
            time.sleep(_IDLE_S)
            busy_s = time.process_time() - busy_s
            after = _Usage.now()
    return {
        "rss_mb": round(after.rss_mb - before.rss_mb, 2),
        "threads": after.threads - before.threads,
        "connect_s": round(connect_s, 3),
        "first_call_s": round(first_call_s, 3),
        "idle_cpu_percent": round(busy_s / _IDLE_S * 100, 2),
        "rss_mb_since_import": round(after.rss_mb - imported.rss_mb, 2),
        "threads_since_import": after.threads - imported.threads,
    }


def _main(order: str) -> None:
    arguments: dict[str, Any] = json.loads(order)
    print(json.dumps(_measure(**arguments)))


if __name__ == "__main__":
    _main(sys.argv[1])
