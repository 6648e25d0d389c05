"""A family of four workers is rolled by SIGHUP under load: how many calls fail.

``etcd-grpc serve --workers 4`` replaces one worker after another, each on its own port.  The clients
and the load are those of ``rolling_restart``, and so is what must hold: our channels lose no call.
"""

from __future__ import annotations

import contextlib
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import IO, Any

from benchmarks.outcome import BenchmarkError, Outcome, Size
from benchmarks.rolling_restart import Cast, report_of, summed, tell
from benchmarks.stage import ROOT
from etcd_grpc.devcluster import Cluster

__all__ = ["roll", "run"]

_SERVICE = "rolling"
_WORKERS = 4
_PAUSE_S = {Size.FULL: 2.0, Size.QUICK: 1.0, Size.TINY: 0.1}
_RUNS = {Size.FULL: 10, Size.QUICK: 1, Size.TINY: 1}
_RATE = {Size.FULL: 500.0, Size.QUICK: 500.0, Size.TINY: 30.0}
_CLIENTS = 3
_TIMEOUT_S = 90.0


def run(size: Size) -> Outcome:
    """Measure."""
    runs, rate = _RUNS[size], _RATE[size]
    found = []
    with Cluster(1) as cluster:
        for number in range(runs):
            found.append(roll(cluster.endpoints[0], rate, _PAUSE_S[size]))
            tell(number, runs, found[-1])
    return Outcome(summed(found), {"runs": runs, "rate": round(rate), "workers": _WORKERS})


def roll(etcd: str, rate: float, pause_s: float) -> dict[str, dict[str, Any]]:
    """Roll a family once; return ``calls``, ``failed`` (by code) and ``errors`` by client.

    Raises:
        BenchmarkError: A process failed, or did not do its part in time.
    """
    with contextlib.ExitStack() as stack:
        cast = Cast(stack)
        port = _free_ports(_WORKERS)
        family = _family(cast, etcd, port)
        said = stack.enter_context(_stderr(family))
        _await(said, "serves at", _WORKERS)
        addresses = [f"127.0.0.1:{port + place}" for place in range(_WORKERS)]
        order = {"service": _SERVICE, "etcd": etcd, "addresses": addresses}
        clients = cast.call(order | {"rate": rate / _CLIENTS})
        time.sleep(pause_s)
        family.send_signal(signal.SIGHUP)
        _await(said, "all workers are replaced", 1)
        time.sleep(pause_s)
        return {kind: report_of(client) for kind, client in clients.items()}


def _family(cast: Cast, etcd: str, port: int) -> subprocess.Popen[bytes]:
    program = [sys.executable, "-c", "from etcd_grpc.cli import main; main()"]
    options = ["--service", _SERVICE, "--port", str(port), "--workers", str(_WORKERS), "--etcd", etcd]
    return cast.children.spawn(
        [*program, "serve", "benchmarks.served:add_servicers", *options],
        cwd=ROOT,
        stderr=subprocess.PIPE,
    )


@contextlib.contextmanager
def _stderr(process: subprocess.Popen[bytes]) -> Iterator[IO[bytes]]:
    assert process.stderr is not None
    with process.stderr as stream:
        yield stream


def _await(said: IO[bytes], what: str, times: int) -> None:
    """Read lines until ``what`` stands in so many of them."""
    end = time.monotonic() + _TIMEOUT_S
    while times:
        line = said.readline().decode()
        if not line or time.monotonic() > end:
            raise BenchmarkError(f"the workers did not get to say {what!r}")
        if line.startswith("etcd-grpc:"):  # the parent itself
            times -= what in line
        if "is lost" in line:
            raise BenchmarkError(line)


def _free_ports(count: int) -> int:
    """The first of ``count`` ports in a row on which nobody listens."""
    rng = random.Random()  # of no consequence for what is measured
    for _ in range(100):
        first = rng.randrange(20_000, 30_000)
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(first, first + count):
                probe = stack.enter_context(socket.socket())
                probe.bind(("127.0.0.1", port))
            return first
    raise BenchmarkError(f"no {count} free ports in a row")
