"""The lives of servers: of this process, of worker processes, of a program beside a sidecar."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from etcd_grpc.telemetry.events.base import Event

__all__ = [
    "DrainStarted",
    "LoopLagging",
    "LoopRecovered",
    "ProbeFailed",
    "ProbeSucceeded",
    "ProgramEnded",
    "ServingEnded",
    "ServingStarted",
    "WorkerCrashed",
    "WorkerReady",
    "WorkersCounted",
    "WorkersEnded",
    "WorkersRolled",
]


@dataclass(frozen=True, slots=True)
class ServingStarted(Event):
    """A server takes calls, and clients can find it."""

    logger = "etcd_grpc.server"
    services: tuple[str, ...]
    address: str
    instance: str

    def __str__(self) -> str:
        return f"serving {', '.join(self.services)} at {self.address} (instance {self.instance})"


@dataclass(frozen=True, slots=True)
class DrainStarted(Event):
    """A server leaves: clients are told, what is in flight is finished, at most for ``grace_s``."""

    logger = "etcd_grpc.server"
    services: tuple[str, ...]
    address: str
    in_flight: int
    grace_s: float

    def __str__(self) -> str:
        return (
            f"draining {', '.join(self.services)} at {self.address}: {self.in_flight} calls in flight, "
            f"at most {self.grace_s:g} s"
        )


@dataclass(frozen=True, slots=True)
class ServingEnded(Event):
    """A server has stopped, ``after_s`` seconds after it began to leave; it ``cut`` so many calls."""

    logger = "etcd_grpc.server"
    services: tuple[str, ...]
    address: str
    after_s: float
    cut: int

    def __str__(self) -> str:
        cut = f"; {self.cut} calls were cut off" if self.cut else ""
        return f"stopped {', '.join(self.services)} at {self.address} after {self.after_s:.1f} s{cut}"


@dataclass(frozen=True, slots=True)
class LoopLagging(Event):
    """A server's event loop is blocked or overloaded: it takes no calls until it has recovered."""

    level = logging.WARNING
    logger = "etcd_grpc.server"
    address: str
    lag_s: float

    def __str__(self) -> str:
        return (
            f"the event loop of {self.address} lags by {self.lag_s:.1f} s: not serving until it has "
            "recovered. What blocks it belongs on a thread (asyncio.to_thread), or is too much load"
        )


@dataclass(frozen=True, slots=True)
class LoopRecovered(Event):
    """The event loop keeps up again."""

    level = logging.WARNING
    logger = "etcd_grpc.server"
    address: str

    def __str__(self) -> str:
        return f"the event loop of {self.address} has recovered: serving again"


@dataclass(frozen=True, slots=True)
class WorkerReady(Event):
    """A worker process serves."""

    logger = "etcd_grpc.workers"
    place: int
    pid: int
    address: str

    def __str__(self) -> str:
        return f"worker {self.place} (process {self.pid}) serves at {self.address}"


@dataclass(frozen=True, slots=True)
class WorkerCrashed(Event):
    """A worker process has ended unasked, the ``times``-th time in a row.

    ``pid`` is 0 if the system could not even start it.  ``again_in_s`` is how long, in seconds, until
    it is started again; None: it is not.
    """

    level = logging.WARNING
    logger = "etcd_grpc.workers"
    place: int
    pid: int
    why: str
    times: int
    again_in_s: float | None

    def __str__(self) -> str:
        who = f"worker {self.place} (process {self.pid})" if self.pid else f"worker {self.place}"
        if self.again_in_s is None:
            return f"{who} is lost: {self.why}"
        often = f" ({self.times} times in a row)" if self.times > 1 else ""
        return f"{who} is lost{often}, and is started again in {self.again_in_s:.1f} s: {self.why}"


@dataclass(frozen=True, slots=True)
class WorkersRolled(Event):
    """Every worker process was replaced; or not, as that of place ``failed_place`` did not come up."""

    logger = "etcd_grpc.workers"
    failed_place: int | None

    def __str__(self) -> str:
        if self.failed_place is None:
            return "all workers are replaced"
        return f"replacing workers ended: the new process of worker {self.failed_place} did not come up"


@dataclass(frozen=True, slots=True)
class WorkersCounted(Event):
    """How the workers stand, because somebody has asked (SIGUSR1)."""

    logger = "etcd_grpc.workers"
    fleet: str

    def __str__(self) -> str:
        return f"the workers stand so: {self.fleet}"


@dataclass(frozen=True, slots=True)
class WorkersEnded(Event):
    """All workers have ended; what they did in all."""

    logger = "etcd_grpc.workers"
    fleet: str

    def __str__(self) -> str:
        return f"all workers have ended: {self.fleet}"


@dataclass(frozen=True, slots=True)
class ProbeSucceeded(Event):
    """A program is well, for the first time or again: it is registered."""

    logger = "etcd_grpc.sidecar"
    service: str
    address: str

    def __str__(self) -> str:
        return f"the program of {self.service} at {self.address} is well"


@dataclass(frozen=True, slots=True)
class ProbeFailed(Event):
    """A program is no longer well: it is withdrawn until it is."""

    level = logging.WARNING
    logger = "etcd_grpc.sidecar"
    service: str
    address: str
    why: str

    def __str__(self) -> str:
        return f"the program of {self.service} at {self.address} is withdrawn, being unwell: {self.why}"


@dataclass(frozen=True, slots=True)
class ProgramEnded(Event):
    """A program has ended by itself; ``unready``: why it was never well, if it was not."""

    level = logging.WARNING
    logger = "etcd_grpc.sidecar"
    program: str
    status: int
    unready: str = ""

    def __str__(self) -> str:
        before = f" before it was ready ({self.unready})" if self.unready else ""
        return f"{self.program} has ended with status {self.status}{before}"
