"""A service of 10,000 endpoints: the first view of it, its memory, 1,000 changes a second, and rest.

The measured process (``scale_client``) follows the service from an application's event loop.  At rest
etcd's own counters tell what following costs it; then endpoints come, go and change their weights, ten
in a transaction, and from the last transaction's return we count until the view is complete.  Whether
it is the right one, a digest of it tells.

Then the same with an asyncio channel, whose endpoints are addresses of 127.0.0.0/8 before few servers,
while weights change: how often it makes a new picker, and how late its event loop is.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from benchmarks.etcd_metrics import read
from benchmarks.limits import allow_open_files
from benchmarks.outcome import BenchmarkError, Outcome, Size
from benchmarks.scale_client import LAST, digest
from benchmarks.stage import ROOT, Writer, loopback_addresses, start_echo_servers
from etcd_grpc.devcluster import Cluster
from etcd_grpc.processes.children import Children

__all__ = ["connect", "follow", "run"]

_SERVICE = "scale"
_IN_ONE = 10  # changes in a transaction
_FILL = 100  # endpoints in a transaction
_SERVERS = 2


@dataclass(frozen=True, slots=True)
class _Scale:
    endpoints: int
    connected: int  # endpoints of the channel
    runs: int
    changes_s: float  # for how long changes come
    idle_s: float


_SCALES = {
    Size.FULL: _Scale(endpoints=10_000, connected=10_000, runs=3, changes_s=20, idle_s=10),
    Size.QUICK: _Scale(endpoints=10_000, connected=1000, runs=1, changes_s=5, idle_s=2),
    Size.TINY: _Scale(endpoints=300, connected=20, runs=1, changes_s=0.5, idle_s=0.2),
}
_PER_SECOND = 1000


def run(size: Size) -> Outcome:
    """Measure; of several runs, each in a new process, the worst figure counts."""
    scale = _SCALES[size]
    allow_open_files(scale.connected)
    found = [follow(scale.endpoints, scale.changes_s, scale.idle_s) for _ in range(scale.runs)]
    results = {name: max(one[name] for one in found) for name in found[0]}
    results["changes_per_s"] = min(one["changes_per_s"] for one in found)
    results |= connect(scale.connected, scale.changes_s)
    counts = {"endpoints": scale.endpoints, "connected": scale.connected, "runs": scale.runs}
    return Outcome(results, counts)


def follow(endpoints: int, changes_s: float, idle_s: float) -> dict[str, float]:
    """Follow ``endpoints`` at rest for ``idle_s`` and through changes for ``changes_s`` seconds.

    Raises:
        BenchmarkError: The view was not complete in time, or not etcd's in the end.
    """
    empty_mb = _empty_process_mb()
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(Cluster(1))
        writer = stack.enter_context(Writer(cluster.endpoints))
        addresses = _addresses(endpoints)
        standing = _fill(writer, addresses)
        client = stack.enter_context(_client(cluster.endpoints[0], endpoints, channel=False))
        found = client.hear()
        before = read(cluster.endpoints[0])
        time.sleep(idle_s)
        after = read(cluster.endpoints[0])
        client.turn()
        per_s = _churn(writer, standing, changes_s, replace=4)
        ended_at = _finish(writer, standing)
        client.turn()
        found |= client.hear()
    if found.pop("digest") != digest(standing.items()):
        raise BenchmarkError("the view is not what was written")
    figures = {name: float(value) for name, value in found.items()}
    figures["converge_s"] = round(max(0.0, figures.pop("last_at") - ended_at), 3)
    figures["rss_mb"] = round(figures["rss_mb"] - empty_mb, 2)
    figures["rss_after_changes_mb"] = round(figures["rss_after_changes_mb"] - empty_mb, 2)
    figures["ranges_idle"] = after.requests["Range"] - before.requests["Range"]
    figures["requests_idle"] = after.total - before.total
    figures["changes_per_s"] = per_s
    _show(figures)
    return figures


def connect(endpoints: int, changes_s: float) -> dict[str, float]:
    """Follow by a channel with ``endpoints`` connections, which change their weights only.

    Raises:
        BenchmarkError: They were not all connected in time, or the last change was not seen.
    """
    with contextlib.ExitStack() as stack:
        children = stack.enter_context(Children("benchmark servers"))
        cluster = stack.enter_context(Cluster(1))
        ports = start_echo_servers(children, _SERVERS, "0.0.0.0")
        writer = stack.enter_context(Writer(cluster.endpoints))
        standing = _fill(writer, loopback_addresses(endpoints, ports))
        client = stack.enter_context(_client(cluster.endpoints[0], endpoints, channel=True))
        found = client.hear()
        client.turn()
        _churn(writer, standing, changes_s, replace=0)
        ended_at = _finish(writer, standing)
        client.turn()
        found |= client.hear()
    figures = {name: float(value) for name, value in found.items()}
    figures["channel_converge_s"] = round(max(0.0, figures.pop("last_at") - ended_at), 3)
    _show(figures)
    return figures


def _addresses(count: int) -> list[str]:
    """Where nobody listens: nothing connects to them."""
    return [f"10.{index // 62_500}.{index // 250 % 250}.{index % 250}:50051" for index in range(count)]


def _fill(writer: Writer, addresses: list[str]) -> dict[str, float]:
    """Write all endpoints; return their weights."""
    for first in range(0, len(addresses), _FILL):
        writer.change(_SERVICE, dict.fromkeys(addresses[first : first + _FILL], 1.0))
    return dict.fromkeys(addresses, 1.0)


def _churn(writer: Writer, standing: dict[str, float], lasts_s: float, replace: int) -> float:
    """Change ``standing``, 1,000 a second; return how many a second it was.

    Of ten changes, ``replace`` endpoints are deleted, as many new ones put in their place, and the
    others get another weight.
    """
    began = time.monotonic()
    fresh = iter(range(1_000_000))
    rounds = max(1, round(lasts_s * _PER_SECOND / _IN_ONE))
    for number in range(rounds):
        time.sleep(max(0.0, began + number * _IN_ONE / _PER_SECOND - time.monotonic()))
        oldest = list(_first(standing, _IN_ONE - replace))
        gone, changed = oldest[:replace], oldest[replace:]
        weight = 2.0 + number % 100
        puts = dict.fromkeys(changed, weight)
        puts |= {f"{_fresh(next(fresh))}:50051": 1.0 for _ in range(replace)}
        writer.change(_SERVICE, puts, gone)
        for address in oldest:
            del standing[address]
        standing |= puts  # at the end: what was changed last comes last again
    return round(rounds * _IN_ONE / (time.monotonic() - began), 1)


def _fresh(index: int) -> str:
    return f"11.{index // 62_500}.{index // 250 % 250}.{index % 250}"


def _first(standing: Mapping[str, float], count: int) -> Iterator[str]:
    for address, _ in zip(standing, range(count), strict=False):
        yield address


def _finish(writer: Writer, standing: dict[str, float]) -> float:
    """Make the last change; return when (time.monotonic) etcd had acknowledged it."""
    address = next(iter(standing))
    writer.change(_SERVICE, {address: LAST})
    standing[address] = LAST
    return time.monotonic()


def _empty_process_mb() -> float:
    """What a Python process takes that has done nothing yet."""
    code = "print(next(l for l in open('/proc/self/status') if l.startswith('VmRSS')).split()[1])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    return int(answer.stdout) / 1024


class _Client:
    """The measured process."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def hear(self) -> dict[str, float | str]:
        """Its next figures.

        Raises:
            BenchmarkError: It failed; why is on standard error.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise BenchmarkError(f"the measured process failed (exit status {self._process.wait()})")
        figures: dict[str, float | str] = json.loads(line)
        return figures

    def turn(self) -> None:
        """Tell it that the next turn has come."""
        self._process.send_signal(signal.SIGUSR1)


@contextlib.contextmanager
def _client(etcd: str, count: int, *, channel: bool) -> Iterator[_Client]:
    order = {"etcd": [etcd], "service": _SERVICE, "count": count, "channel": channel}
    with Children("measured process") as children:
        process = children.spawn(
            [sys.executable, "-m", "benchmarks.scale_client", json.dumps(order)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=sys.stderr.fileno(),
        )
        assert process.stdout is not None
        with process.stdout:
            yield _Client(process)


def _show(figures: Mapping[str, float]) -> None:
    print(", ".join(f"{name} {value}" for name, value in figures.items()), file=sys.stderr)
