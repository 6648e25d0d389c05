"""What one channel with 1,000 connected endpoints costs: memory, threads, time to connect.

Measured in a process of its own (``endpoints_client``).  The endpoints are 1,000 addresses of
127.0.0.0/8, behind which are two servers; each is a connection of its own.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys

from benchmarks.limits import allow_open_files
from benchmarks.outcome import BenchmarkError, Outcome, Size
from benchmarks.stage import ROOT, Writer, loopback_addresses, start_echo_servers
from etcd_grpc.devcluster import Cluster
from etcd_grpc.processes.children import Children

__all__ = ["run"]

_SERVICE = "endpoints"
_ENDPOINTS = {Size.FULL: 1000, Size.QUICK: 1000, Size.TINY: 20}
_RUNS = {Size.FULL: 3, Size.QUICK: 1, Size.TINY: 1}
_SERVERS = 2
_CLIENT_TIMEOUT_S = 120.0


def run(size: Size) -> Outcome:
    """Measure; of several runs, each in a new process, the worst figure counts."""
    count, runs = _ENDPOINTS[size], _RUNS[size]
    allow_open_files(count)
    with contextlib.ExitStack() as stack:
        children = stack.enter_context(Children("benchmark servers"))
        cluster = stack.enter_context(Cluster(1))
        ports = start_echo_servers(children, _SERVERS, "0.0.0.0")
        with Writer(cluster.endpoints) as writer:
            for address in loopback_addresses(count, ports):
                writer.put(_SERVICE, address)
        order = {
            "etcd": cluster.endpoints,
            "service": _SERVICE,
            "count": count,
            "plain": f"127.0.0.1:{ports[0]}",
        }
        found = [_client(children, json.dumps(order)) for _ in range(runs)]
    results = {name: max(one[name] for one in found) for name in found[0]}
    return Outcome(results, {"endpoints": count, "servers": _SERVERS, "runs": runs})


def _client(children: Children, order: str) -> dict[str, float]:
    """Run the measured process; return its figures.

    Raises:
        BenchmarkError: It failed; why is on standard error.
    """
    process = children.spawn(
        [sys.executable, "-m", "benchmarks.endpoints_client", order],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=sys.stderr.fileno(),
    )
    answer, _ = process.communicate(timeout=_CLIENT_TIMEOUT_S)
    if process.returncode:
        raise BenchmarkError(f"the measured process failed (exit status {process.returncode})")
    figures: dict[str, float] = json.loads(answer)
    print(figures, file=sys.stderr)
    return figures
