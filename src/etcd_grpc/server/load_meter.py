"""How much a process has to do: calls, failures, CPU, over a window that slides.  Pure.

Rates are differences between now and the oldest sample of the last ``window_s`` seconds, so that
calls and CPU are measured over the same time, which is what makes their quotient a weight (gRFC A58).
Samples are taken when calls end.  After a pause longer than the window there is no sample within it,
and the first rates are those since the last one: nearly none, which is true; the next ones are of the
new time alone.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

__all__ = ["Counts", "LoadMeter", "Rates"]


class Counts(NamedTuple):
    """Calls since the start: those that have ended, those that failed by the server's fault, those
    under way."""

    calls: int
    failures: int
    in_flight: int


class Rates(NamedTuple):
    """Over the window: the share of ``cores`` in use, calls a second, failed calls a second."""

    cpu: float
    qps: float
    eps: float


class _Sample(NamedTuple):
    at_s: float
    cpu_s: float
    calls: int
    failures: int


class LoadMeter:
    """Counts and measures.  Not safe for threads: whoever owns it takes care of that.

    Args:
        cores: How many cores the process can use; they, fully used, are a share of 1.
        window_s: Over which time rates are taken, in seconds.
        now, cpu_s: The time, and the CPU time spent so far, in seconds.
    """

    def __init__(self, cores: float, window_s: float, now: float, cpu_s: float) -> None:
        self._cores = cores
        self._window_s = window_s
        self._calls = self._failures = self._in_flight = 0
        self._samples = deque([_Sample(now, cpu_s, 0, 0)])

    @property
    def counts(self) -> Counts:
        """So far."""
        return Counts(self._calls, self._failures, self._in_flight)

    def begin(self) -> None:
        """A call has come."""
        self._in_flight += 1

    def end(self, *, failed: bool) -> None:
        """A call has ended."""
        self._in_flight -= 1
        self._calls += 1
        self._failures += failed

    def rates(self, now: float, cpu_s: float) -> Rates:
        """Take a sample; return the rates up to it.  ``now`` must be later than the sample before."""
        samples = self._samples
        while len(samples) > 1 and samples[0].at_s < now - self._window_s:
            samples.popleft()
        first, last = samples[0], _Sample(now, cpu_s, self._calls, self._failures)
        samples.append(last)
        took_s = last.at_s - first.at_s
        return Rates(
            cpu=(last.cpu_s - first.cpu_s) / took_s / self._cores,
            qps=(last.calls - first.calls) / took_s,
            eps=(last.failures - first.failures) / took_s,
        )
