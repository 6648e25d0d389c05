"""What etcd itself counts, from its /metrics: calls, requests, watches; and how they come over time.

A unary call is one call and one request; a watch stream is one call, and every watch created on it one
request.  They are counted when they arrive, whatever becomes of them.  Reading /metrics is not among
them.  Counters begin anew with the process.
"""

from __future__ import annotations

import http.client
import re
import threading
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import NamedTuple, Self

__all__ = ["Sample", "Sampler", "peak", "rates", "read"]

# Not those of grpc.health.v1, which has a method Watch, too.
_COUNTER = re.compile(
    r'^grpc_server_(started|msg_received)_total\{grpc_method="(\w+)",grpc_service="etcdserverpb\.\w+"'
    r".*\} (\S+)$",
    re.MULTILINE,
)
_WATCHES = re.compile(r"^etcd_debugging_mvcc_watcher_total (\S+)$", re.MULTILINE)
_TIMEOUT_S = 5.0


class Sample(NamedTuple):
    """What a member had counted at ``at`` (time.monotonic).

    Attributes:
        calls: By method.
        requests: By method.
        watches: How many there are now.
    """

    at: float
    calls: Mapping[str, int]
    requests: Mapping[str, int]
    watches: int = 0

    @property
    def total(self) -> int:
        """All requests."""
        return sum(self.requests.values())


def read(member: str) -> Sample:
    """What ``member`` (``host:port``) has counted since its process began.

    Raises:
        OSError: It does not answer.
    """
    connection = http.client.HTTPConnection(member, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    except http.client.HTTPException as error:  # it is going, or coming
        raise OSError(f"{member}: {error!r}") from error
    finally:
        connection.close()
    counted: dict[str, dict[str, int]] = {"started": {}, "msg_received": {}}
    for what, method, count in _COUNTER.findall(text):
        counted[what][method] = int(float(count))
    watches = _WATCHES.search(text)
    return Sample(
        time.monotonic(),
        counted["started"],
        counted["msg_received"],
        int(float(watches[1])) if watches else 0,
    )


def rates(samples: Sequence[Sample], window_s: float) -> list[tuple[float, float]]:
    """Requests in ``window_s`` from each sample on, as (its time, requests).

    The window ends with the first sample that is at least so far away, and what was counted is scaled
    to the window's length.  A counter that went back belongs to a new process and began at 0.
    """
    found = []
    end = 0
    for begin in samples:
        while end < len(samples) and samples[end].at - begin.at < window_s:
            end += 1
        if end == len(samples):
            break
        last = samples[end]
        counted = last.total - begin.total if last.total >= begin.total else last.total
        found.append((begin.at, counted * window_s / (last.at - begin.at)))
    return found


def peak(samples: Sequence[Sample], window_s: float) -> float:
    """The most requests in any ``window_s``."""
    return max((requests for _, requests in rates(samples, window_s)), default=0.0)


class Sampler:
    """Reads a member's counters all the time, on a thread; while it is down there is no sample.

    Args:
        member: ``host:port``.
        interval_s: From one reading to the next.
    """

    def __init__(self, member: str, interval_s: float = 0.05) -> None:
        self._member = member
        self._interval_s = interval_s
        self._done = threading.Event()
        self.samples: list[Sample] = []
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    def _run(self) -> None:
        due = time.monotonic()
        while not self._done.wait(max(0.0, due - time.monotonic())):
            due = time.monotonic() + self._interval_s
            try:
                self.samples.append(read(self._member))
            except OSError:
                continue  # it is down, which is part of what is looked at

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()
