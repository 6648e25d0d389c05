"""500 sessions come back to an etcd that was away: how fast, and how many requests that makes at once.

Each session watches one service and holds one registration; fifty of them share a process.  The only
member of etcd is killed, which every session notices at once, and started again on its data.  What
arrives there then, etcd itself counts (``etcd_metrics``), every 50 ms.  All sessions at once would be
as many watches, and as many keepalives, within the first moment; jitter spreads them.

The full run draws docs/plots/recovery.svg.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.etcd_metrics import Sample, Sampler, peak, rates
from benchmarks.outcome import BenchmarkError, Outcome, Size
from benchmarks.plot import Chart, Line, Mark
from benchmarks.stage import ROOT
from etcd_grpc.devcluster import Cluster
from etcd_grpc.processes.children import Children

__all__ = ["run"]

_PLOT = ROOT / "docs" / "plots" / "recovery.svg"
_TTL_S = 10
_WINDOW_S = 0.1
_KEPT_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class _Scale:
    sessions: int
    processes: int
    before_s: float  # for how long it is watched at rest
    outage_s: float
    after_s: float


_SCALES = {
    Size.FULL: _Scale(sessions=500, processes=10, before_s=5, outage_s=15, after_s=8),
    Size.QUICK: _Scale(sessions=200, processes=4, before_s=2, outage_s=6, after_s=3),
    Size.TINY: _Scale(sessions=6, processes=2, before_s=0.5, outage_s=1, after_s=0.5),
}


@dataclass(frozen=True, slots=True)
class _Outage:
    """One outage as it was seen; times are of time.monotonic."""

    killed_at: float
    started_at: float  # when etcd was started again
    up_at: Sequence[float]  # of each session
    samples: Sequence[Sample]

    @property
    def rest(self) -> Sequence[Sample]:
        """What etcd counted before it was killed."""
        return [sample for sample in self.samples if sample.at < self.killed_at]

    @property
    def back(self) -> Sequence[Sample]:
        """What its new process counted, which began with nothing."""
        found = [sample for sample in self.samples if sample.at > self.started_at]
        return [Sample(found[0].at - _WINDOW_S, {}, {}), *found]

    @property
    def back_at(self) -> float:
        """When it answered again."""
        return self.back[1].at


def run(size: Size) -> Outcome:
    """Measure one outage."""
    scale = _SCALES[size]
    outage = _break(scale)
    if size is Size.FULL:
        _PLOT.parent.mkdir(exist_ok=True)
        _PLOT.write_text(_draw(outage, scale.sessions), encoding="utf-8")
    back, began = outage.back, outage.back_at
    up = sorted(max(0.0, at - began) for at in outage.up_at)
    recovering = [sample for sample in back if sample.at <= max(outage.up_at) + _WINDOW_S]
    results = {
        "peak_requests_per_100ms": round(peak(back, _WINDOW_S), 1),
        "rest_requests_per_100ms": round(peak(outage.rest, _WINDOW_S), 1),
        "recovered_half_s": round(up[len(up) // 2], 3),
        "recovered_all_s": round(up[-1], 3),
        "kept_alive_all_s": round(_kept(back, scale.sessions).at - began, 3),
        "requests_recovering": recovering[-1].total,
        "streams": back[-1].calls["Watch"],
        "ranges": back[-1].requests["Range"],
    }
    counts = {"sessions": scale.sessions, "processes": scale.processes}
    return Outcome(results, counts | {"outage_s": round(scale.outage_s)})


def _break(scale: _Scale) -> _Outage:
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(Cluster(1))
        member = cluster.endpoints[0]
        clients = _Clients(stack.enter_context(Children("sessions")), member, scale)
        clients.hear()
        print(f"{scale.sessions} sessions follow etcd", file=sys.stderr)
        sampler = stack.enter_context(Sampler(member))
        time.sleep(scale.before_s)
        killed_at = time.monotonic()
        cluster.kill(0)
        time.sleep(scale.outage_s)
        started_at = time.monotonic()
        cluster.restart(0)
        up_at = [at for found in clients.hear() for at in found["up_at"]]
        print(f"all sessions follow it again after {max(up_at) - killed_at:.1f} s", file=sys.stderr)
        end = time.monotonic() + _KEPT_TIMEOUT_S
        while _kept_by(_newest(sampler, started_at)) < scale.sessions:
            if time.monotonic() > end:
                raise BenchmarkError(f"not all leases were kept within {_KEPT_TIMEOUT_S:g} s")
            time.sleep(0.05)
        time.sleep(scale.after_s)
        clients.close()
    return _Outage(killed_at, started_at, up_at, sampler.samples)


def _newest(sampler: Sampler, since: float) -> Sample:
    """What was counted last; nothing if that was before ``since``, by a process that has ended."""
    newest = sampler.samples[-1]
    return newest if newest.at > since else Sample(since, {}, {})


def _kept_by(sample: Sample) -> int:
    """Leases that were kept or granted; one that is kept twice before another once counts twice."""
    return sample.requests.get("LeaseKeepAlive", 0) + sample.requests.get("LeaseGrant", 0)


def _kept(samples: Sequence[Sample], sessions: int) -> Sample:
    return next(sample for sample in samples if _kept_by(sample) >= sessions)


class _Clients:
    """The processes with the sessions."""

    def __init__(self, children: Children, member: str, scale: _Scale) -> None:
        each = scale.sessions // scale.processes
        self._processes = []
        for number in range(scale.processes):
            order = {"etcd": member, "first": number * each, "count": each, "ttl_s": _TTL_S}
            command = [sys.executable, "-m", "benchmarks.recovery_client", json.dumps(order)]
            self._processes.append(
                children.spawn(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=sys.stderr.fileno())
            )

    def hear(self) -> list[dict[str, Any]]:
        """The next line of each.

        Raises:
            BenchmarkError: One failed; why is on standard error.
        """
        found = []
        for process in self._processes:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise BenchmarkError(f"sessions failed (exit status {process.wait()})")
            found.append(json.loads(line))
        return found

    def close(self) -> None:
        """Read no more."""
        for process in self._processes:
            assert process.stdout is not None
            process.stdout.close()


def _draw(outage: _Outage, sessions: int) -> str:
    """Requests at etcd over the seconds since it was killed, and how many sessions follow it."""
    since, back_at = outage.killed_at, outage.back_at
    before, after = (
        [(at - since, n) for at, n in rates(part, _WINDOW_S)] for part in (outage.rest, outage.back)
    )
    requests = [*before, (0.0, before[-1][1]), (0.0, 0.0), (back_at - since, 0.0), *after]
    down = [(requests[0][0], float(sessions)), (0.0, 0.0)]
    up = [(at - since, float(n)) for n, at in enumerate(sorted(outage.up_at), 1)]
    return Chart(
        f"{sessions} sessions: etcd away for {back_at - since:.0f} s",
        "seconds since etcd was killed",
        "",
        [
            Line("requests at etcd in 100 ms", requests),
            Line("sessions that follow etcd", [*down, *up, (requests[-1][0], up[-1][1])], steps=True),
        ],
        [Mark(0, "killed"), Mark(back_at - since, "back")],
    ).svg()
