"""One load reporter a process: it counts calls, measures rates and holds the headers ready to send.

A report is made at most every 250 ms, by the call that ends when it is due; every other call pays for
counting it and for handing over what is there.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

from etcd_grpc.errors import ConfigurationError
from etcd_grpc.load_report import (
    BINARY_HEADER,
    MAX_NAMED,
    TEXT_HEADER,
    OrcaLoadReport,
    encode_binary,
    encode_text,
)
from etcd_grpc.server.cores import usable_cores
from etcd_grpc.server.load_meter import Counts, LoadMeter

__all__ = ["Headers", "LoadReporter", "process_reporter"]

Headers: TypeAlias = "tuple[tuple[str, str | bytes], ...]"

_IN_FLIGHT = "in_flight"
_LOOP_LAG = "loop_lag_s"
_OWN = {_IN_FLIGHT, _LOOP_LAG}


class LoadReporter:
    """Measures this process's load and makes reports of it.  Any thread may call any method.

    Args:
        cores: How many cores count as fully busy; None: one (Python's interpreter lock), or fewer under
            a container's CPU quota.
        window_s: Over how many seconds rates are measured.
        every_s: For how many seconds a report is used before the next is made.
        clock, cpu: Monotonic seconds, and seconds of CPU time spent by the process.

    Attributes:
        lag: Tells by how many seconds the event loop lags; None where there is no loop.

    Raises:
        ConfigurationError: A number is not more than 0.
    """

    def __init__(
        self,
        *,
        cores: float | None = None,
        window_s: float = 5.0,
        every_s: float = 0.25,
        clock: Callable[[], float] = time.monotonic,
        cpu: Callable[[], float] = time.process_time,
    ) -> None:
        cores = usable_cores() if cores is None else cores
        for name, value in (("cores", cores), ("window_s", window_s), ("every_s", every_s)):
            if not value > 0:
                raise ConfigurationError(f"{name} is {value!r}; it must be more than 0")
        self.lag: Callable[[], float] | None = None
        self._every_s = every_s
        self._clock = clock
        self._cpu = cpu
        # Guards all below: calls end in many threads.  Held to count, and every 250 ms for a report.
        self._lock = threading.Lock()
        self._due_s = clock() + every_s
        self._meter = LoadMeter(cores, window_s, clock(), cpu())
        self._said = OrcaLoadReport()  # by the application
        self._report = OrcaLoadReport()
        self._headers: Headers = ()

    def set(
        self,
        *,
        application_utilization: float | None = None,
        mem_utilization: float | None = None,
        named: Mapping[str, float | None] | None = None,
    ) -> None:
        """Say what only the application knows; it is in all reports from the next one on.

        Args:
            application_utilization: How full it is, 1 is full; clients weigh by it instead of the CPU.
                0 takes it back, None leaves it as it is.
            mem_utilization: The same of memory; it is only reported.
            named: Other figures by name, 14 at most.  None as a value takes one back; others stay.

        Raises:
            ConfigurationError: A number is negative or infinite, or a name cannot be sent; nothing
                has changed.
        """
        with self._lock:
            said = self._said
            merged = {**said.named_metrics, **(named or {})}
            kept = {name: value for name, value in merged.items() if value is not None}
            if len(kept.keys() | _OWN) > MAX_NAMED:
                raise ConfigurationError(
                    f"{len(kept)} named load metrics; at most {MAX_NAMED - len(_OWN)} can be sent"
                )
            self._said = OrcaLoadReport(
                application_utilization=_or(application_utilization, said.application_utilization),
                mem_utilization=_or(mem_utilization, said.mem_utilization),
                named_metrics=kept,
            )

    @property
    def report(self) -> OrcaLoadReport:
        """What was reported last."""
        return self._report

    @property
    def counts(self) -> Counts:
        """Calls so far."""
        with self._lock:
            return self._meter.counts

    def begin(self) -> Headers:
        """A call has come; returns what its answer would report if it were sent at once."""
        with self._lock:
            self._meter.begin()
            return self._headers

    def end(self, *, failed: bool) -> Headers:
        """A call has ended, by the server's fault if ``failed``; returns what its answer reports."""
        now = self._clock()
        with self._lock:
            self._meter.end(failed=failed)
            if now >= self._due_s:
                self._due_s = now + self._every_s
                self._measure(now)
            return self._headers

    def _measure(self, now: float) -> None:
        rates = self._meter.rates(now, self._cpu())
        own: dict[str, float] = {_IN_FLIGHT: self._meter.counts.in_flight}
        if self.lag is not None:
            own[_LOOP_LAG] = self.lag()
        self._report = report = OrcaLoadReport(
            cpu_utilization=max(0.0, rates.cpu),
            mem_utilization=self._said.mem_utilization,
            application_utilization=self._said.application_utilization,
            rps_fractional=rates.qps,
            eps=rates.eps,
            named_metrics=MappingProxyType({**self._said.named_metrics, **own}),
        )
        self._headers = (
            (BINARY_HEADER, encode_binary(report)),
            (TEXT_HEADER, encode_text(report)),
        )


def _or(value: float | None, before: float) -> float:
    return before if value is None else value


@functools.cache
def process_reporter() -> LoadReporter:
    """The reporter of this process, made on first use."""
    return LoadReporter()
