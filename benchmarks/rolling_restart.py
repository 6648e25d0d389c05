"""Three instances are restarted one after another under load: how many calls fail.

The servers run under ``etcd_grpc.serve``, the second one its asyncio twin; each gets a SIGTERM, drains,
ends, and is started again on its port.  Three clients in processes of their own share the load: our
channels of both worlds, which must not lose a call, and, counted apart, a plain grpcio channel with
C-core's ``round_robin`` over fixed addresses.  That one learns from GOAWAY alone that a server leaves;
what it loses is what discovery is good for.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.outcome import BenchmarkError, Outcome, Size
from benchmarks.stage import ROOT
from etcd_grpc.devcluster import Cluster
from etcd_grpc.devcluster.ports import reserve_free
from etcd_grpc.processes.children import Children

__all__ = ["CLIENTS", "Cast", "Rolling", "report_of", "run", "summed", "tell"]

CLIENTS = ("sync", "aio", "plain")
_SERVICE = "rolling"
_INSTANCES = 3
_EXIT_S = 60.0


@dataclass(frozen=True, slots=True)
class _Scale:
    runs: int
    rate: float  # calls a second, of all clients together
    pause_s: float  # before, between and after the restarts


_SCALES = {
    Size.FULL: _Scale(runs=10, rate=500, pause_s=2),
    Size.QUICK: _Scale(runs=1, rate=500, pause_s=1),
    Size.TINY: _Scale(runs=1, rate=30, pause_s=0.1),
}


@dataclass(frozen=True, slots=True)
class Rolling:
    """One rolling restart.

    Attributes:
        rate: Calls a second, of all clients together.
        pause_s: Before, between and after the restarts, in seconds.
        settings: Of ``serve``, beyond the service and the port.
        on_leave: Called with the port of a server that is about to get its SIGTERM; what it returns is
            called when that one has ended.
    """

    rate: float = 500.0
    pause_s: float = 1.0
    settings: Mapping[str, Any] = field(default_factory=dict)
    on_leave: Callable[[int], Callable[[], object]] = lambda _port: lambda: None

    def run(self, etcd: str) -> dict[str, dict[str, Any]]:
        """Restart every instance once; return ``calls``, ``failed`` (by code) and ``errors`` by client.

        Raises:
            BenchmarkError: A process failed; why is on standard error.
        """
        with contextlib.ExitStack() as stack:
            cast = Cast(stack)
            held = reserve_free(_INSTANCES)  # also while the server of a port is away
            stack.callback(held.release)
            servers = [cast.serve(self._order(etcd, *numbered)) for numbered in enumerate(held.ports)]
            addresses = [f"127.0.0.1:{port}" for port in held.ports]
            order = {"service": _SERVICE, "etcd": etcd, "addresses": addresses}
            clients = cast.call(order | {"rate": self.rate / len(CLIENTS)})
            time.sleep(self.pause_s)
            for number, (server, port) in enumerate(servers):
                ended = self.on_leave(port)
                server.terminate()
                status = server.wait(_EXIT_S)
                if status:
                    raise BenchmarkError(f"a server ended with status {status}")
                ended()
                cast.serve(self._order(etcd, number, port))
                time.sleep(self.pause_s)
            return {kind: report_of(client) for kind, client in clients.items()}

    def _order(self, etcd: str, number: int, port: int) -> dict[str, Any]:
        own = {"service": _SERVICE, "etcd": etcd, "port": port, "aio": number == 1}
        return own | dict(self.settings)


class Cast:
    """The processes that play, until ``stack`` is closed."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self.children = stack.enter_context(Children("rolling restart"))

    def serve(self, order: Mapping[str, Any]) -> tuple[subprocess.Popen[bytes], int]:
        """A server that clients can find, and its port."""
        process = self._start("benchmarks.served", json.dumps(order))
        return process, int(_line(process))

    def call(self, order: Mapping[str, Any]) -> dict[str, subprocess.Popen[bytes]]:
        """Every kind of client, calling."""
        clients = {
            kind: self._start("benchmarks.rolling_client", kind, json.dumps(order)) for kind in CLIENTS
        }
        for client in clients.values():
            _line(client)
        return clients

    def _start(self, *module: str) -> subprocess.Popen[bytes]:
        process = self.children.spawn(
            [sys.executable, "-m", *module],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=sys.stderr.fileno(),
        )
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            self._stack.callback(pipe.close)
        return process


def run(size: Size, runs: int | None = None) -> Outcome:
    """Measure; ``runs`` in place of those of the size."""
    scale = _SCALES[size]
    runs = scale.runs if runs is None else runs
    found: list[dict[str, dict[str, Any]]] = []
    with Cluster(1) as cluster:
        for number in range(runs):
            found.append(Rolling(scale.rate, scale.pause_s).run(cluster.endpoints[0]))
            tell(number, runs, found[-1])
    return Outcome(summed(found), {"runs": runs, "rate": round(scale.rate), "instances": _INSTANCES})


def tell(number: int, runs: int, reports: Mapping[str, Mapping[str, Any]]) -> None:
    """Say on standard error what the clients lost in one run."""
    lost = {kind: report["failed"] for kind, report in reports.items()}
    print(f"run {number + 1} of {runs}: failed {lost}", file=sys.stderr)
    for kind, report in reports.items():
        for error in report["errors"]:
            print(f"  {kind}, {error}", file=sys.stderr)


def summed(found: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, float]:
    """The figures of all runs."""
    results: dict[str, float] = {}
    for kind in CLIENTS:
        failed = [sum(reports[kind]["failed"].values()) for reports in found]
        results[f"{kind}_failed"] = sum(failed)
        results[f"{kind}_calls"] = sum(reports[kind]["calls"] for reports in found)
        results |= {f"run_{n}_{kind}_failed": count for n, count in enumerate(failed, 1)}
    ours = [sum(sum(reports[kind]["failed"].values()) for kind in ("sync", "aio")) for reports in found]
    results["runs_without_failure"] = ours.count(0)
    return results


def _line(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise BenchmarkError(f"a process failed (exit status {process.wait()})")
    return line.decode()


def report_of(client: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Let ``client`` end; return what it says."""
    assert client.stdin is not None
    client.stdin.close()
    report: dict[str, Any] = json.loads(_line(client))
    client.wait(_EXIT_S)
    return report
