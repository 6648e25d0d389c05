"""The one vocabulary of events.  Logs, metrics and traces are made of these, and of nothing else.

An event is an immutable value that says what has become so, in the past tense or as a state.  Its
text is one line for a log and holds no secret.  ``level`` is that of ``logging`` at which it is logged.

What repeats while something is broken (``Disconnected``, ``RegistrationFailed``) is told at its
beginning and then twice a minute; and twice a minute at most in the log, where a link may flap.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar

from etcd_grpc.model import Change

__all__ = [
    "AuthenticationRefused",
    "CertificateRejected",
    "CertificateRotated",
    "Changed",
    "Compacted",
    "Connected",
    "Disconnected",
    "DrainStarted",
    "Dropped",
    "EntryRejected",
    "Event",
    "Fresh",
    "HoldEnded",
    "HoldStarted",
    "InstanceRefused",
    "KeyLost",
    "LeaseGranted",
    "LeaseLost",
    "LoopLagging",
    "LoopRecovered",
    "Misplaced",
    "Moved",
    "PanicEnded",
    "PanicStarted",
    "ProbeFailed",
    "ProbeSucceeded",
    "ProgramEnded",
    "Reconnected",
    "Registered",
    "RegistrationFailed",
    "RegistrationOvertaken",
    "Relisted",
    "Resolved",
    "ServiceConfigChanged",
    "ServiceConfigForbidden",
    "ServiceConfigRejected",
    "ServingEnded",
    "ServingStarted",
    "SnapshotFailed",
    "SnapshotLoaded",
    "Stale",
    "StoreReplaced",
    "WatchRefused",
    "Withdrawn",
    "WorkerCrashed",
    "WorkerReady",
    "WorkersCounted",
    "WorkersEnded",
    "WorkersRolled",
]


class Event:
    """Something that happened."""

    __slots__ = ()
    level: ClassVar[int] = logging.INFO
    logger: ClassVar[str] = "etcd_grpc.etcd"


# The session with etcd.


@dataclass(frozen=True, slots=True)
class Connected(Event):
    """etcd is watched, for the first time or after nothing was to be watched."""

    level = logging.DEBUG
    member: str

    def __str__(self) -> str:
        return f"etcd is watched on {self.member}"


@dataclass(frozen=True, slots=True)
class Reconnected(Event):
    """etcd is watched again, after ``after_s`` seconds in which it was not."""

    level = logging.WARNING
    member: str
    after_s: float

    def __str__(self) -> str:
        return f"etcd is watched again, after {self.after_s:.1f} s, on {self.member}"


@dataclass(frozen=True, slots=True)
class Moved(Event):
    """The watch goes on at another member, chosen at random when the connection had come of age."""

    level = logging.DEBUG
    before: str
    member: str

    def __str__(self) -> str:
        return f"the watch moves from {self.before} to {self.member}"


@dataclass(frozen=True, slots=True)
class Disconnected(Event):
    """etcd cannot be watched; another member or another attempt follows, without end."""

    level = logging.WARNING
    member: str
    why: str

    def __str__(self) -> str:
        return f"etcd cannot be watched, trying again: {self.why}"


@dataclass(frozen=True, slots=True)
class AuthenticationRefused(Event):
    """etcd does not take the user and password."""

    level = logging.WARNING
    user: str
    why: str

    def __str__(self) -> str:
        return f"etcd refused the credentials of user {self.user!r}, trying again: {self.why}"


@dataclass(frozen=True, slots=True)
class WatchRefused(Event):
    """etcd ended the watch of ``key`` for a reason of its own: a stale token, a missing permission."""

    level = logging.WARNING
    key: str
    why: str

    def __str__(self) -> str:
        return f"etcd refused the watch of {self.key!r}: {self.why}"


@dataclass(frozen=True, slots=True)
class Compacted(Event):
    """The history since the last event seen is gone: ``key`` is listed again."""

    key: str
    revision: int

    def __str__(self) -> str:
        return (
            f"etcd has compacted its history up to revision {self.revision}; listing {self.key!r} again"
        )


@dataclass(frozen=True, slots=True)
class StoreReplaced(Event):
    """The store went back in time or is another one, restored or replaced: ``key`` is listed again."""

    level = logging.WARNING
    key: str
    revision: int
    seen: int

    def __str__(self) -> str:
        return (
            f"etcd is at revision {self.revision} of a store that had {self.seen}, or is another one "
            f"(restored from a backup?); listing {self.key!r} again"
        )


# Registration.


@dataclass(frozen=True, slots=True)
class LeaseGranted(Event):
    """A lease was granted; ``again``: because the one before was lost."""

    level = logging.DEBUG
    logger = "etcd_grpc.registry"
    lease_id: int
    ttl_s: int
    again: bool

    def __str__(self) -> str:
        return f"lease {self.lease_id:x} granted for {self.ttl_s} s"


@dataclass(frozen=True, slots=True)
class LeaseLost(Event):
    """etcd has forgotten the lease, and deleted what stood under it."""

    level = logging.WARNING
    logger = "etcd_grpc.registry"
    lease_id: int

    def __str__(self) -> str:
        return f"the lease {self.lease_id:x} was lost; registering again under a new one"


@dataclass(frozen=True, slots=True)
class Registered(Event):
    """An instance stands in etcd; ``again``: it had been lost."""

    level = logging.DEBUG
    logger = "etcd_grpc.registry"
    service: str
    address: str
    key: str
    again: bool

    def __str__(self) -> str:
        return f"{self.service} at {self.address} is registered{' again' if self.again else ''}"


@dataclass(frozen=True, slots=True)
class KeyLost(Event):
    """The key of an instance was deleted, by hand or with its lease: it is put again."""

    level = logging.WARNING
    logger = "etcd_grpc.registry"
    service: str
    address: str
    key: str

    def __str__(self) -> str:
        return f"the key {self.key!r} of {self.address} was deleted from etcd; putting it again"


@dataclass(frozen=True, slots=True)
class RegistrationFailed(Event):
    """etcd does not take what is to be registered; another attempt follows, without end."""

    level = logging.WARNING
    logger = "etcd_grpc.registry"
    why: str

    def __str__(self) -> str:
        return f"etcd takes no registrations, trying again: {self.why}"


@dataclass(frozen=True, slots=True)
class RegistrationOvertaken(Event):
    """Another live process holds the key: ours waits until it is gone."""

    level = logging.ERROR
    logger = "etcd_grpc.registry"
    service: str
    address: str
    key: str

    def __str__(self) -> str:
        return (
            f"{self.service} at {self.address} is not registered any more: another process has taken "
            f"the key {self.key!r}. Do two processes use the same id, or advertise the same address?"
        )


@dataclass(frozen=True, slots=True)
class Withdrawn(Event):
    """An instance stands in etcd no longer; ``why`` says what went wrong, if anything did."""

    level = logging.DEBUG
    logger = "etcd_grpc.registry"
    service: str
    address: str
    why: str = ""

    def __str__(self) -> str:
        return f"{self.service} at {self.address} is withdrawn{f': {self.why}' if self.why else ''}"


# The life of a server.


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


# Discovery.


@dataclass(frozen=True, slots=True)
class Resolved(Event):
    """The first complete view of a service."""

    level = logging.DEBUG
    logger = "etcd_grpc.resolver"
    service: str
    endpoints: int
    revision: int

    def __str__(self) -> str:
        return f"{self.service} has {self.endpoints} endpoints at revision {self.revision}"


@dataclass(frozen=True, slots=True)
class Changed(Event):
    """Endpoints of a service came, went or were changed."""

    level = logging.DEBUG
    logger = "etcd_grpc.resolver"
    service: str
    changes: tuple[Change, ...]
    revision: int

    def __str__(self) -> str:
        return f"{len(self.changes)} changes of {self.service} at revision {self.revision}"


@dataclass(frozen=True, slots=True)
class Relisted(Event):
    """A service was listed again; ``changes`` is how many endpoints differ from the view before."""

    logger = "etcd_grpc.resolver"
    service: str
    revision: int
    changes: int

    def __str__(self) -> str:
        return f"{self.service} listed again at revision {self.revision}: {self.changes} changes"


@dataclass(frozen=True, slots=True)
class EntryRejected(Event):
    """An entry under a service is no endpoint that can be used; told once for each revision of it."""

    level = logging.WARNING
    logger = "etcd_grpc.resolver"
    service: str
    key: str
    revision: int
    why: str

    def __str__(self) -> str:
        return f"skipped an entry of {self.service} that is no endpoint: {self.why}"


@dataclass(frozen=True, slots=True)
class Stale(Event):
    """The view of a service may be out of date: etcd cannot be followed.  It is served as it was."""

    level = logging.DEBUG
    logger = "etcd_grpc.resolver"
    service: str
    why: str

    def __str__(self) -> str:
        return f"the view of {self.service} may be out of date: {self.why}"


@dataclass(frozen=True, slots=True)
class Fresh(Event):
    """The view of a service is etcd's again, after ``stale_s`` seconds."""

    level = logging.DEBUG
    logger = "etcd_grpc.resolver"
    service: str
    stale_s: float

    def __str__(self) -> str:
        return f"the view of {self.service} is up to date again, after {self.stale_s:.1f} s"


@dataclass(frozen=True, slots=True)
class HoldStarted(Event):
    """More than half of the endpoints vanished at once, unannounced: they are kept for ``hold_s``."""

    level = logging.WARNING
    logger = "etcd_grpc.resolver"
    service: str
    held: int
    left: int
    hold_s: float

    def __str__(self) -> str:
        return (
            f"{self.held} endpoints of {self.service} vanished at once without having been withdrawn, "
            f"{self.left} are left: keeping them for {self.hold_s:g} s, calls go to those that connect"
        )


@dataclass(frozen=True, slots=True)
class HoldEnded(Event):
    """The time is over: ``dropped`` endpoints that did not come back are gone."""

    level = logging.WARNING
    logger = "etcd_grpc.resolver"
    service: str
    dropped: int

    def __str__(self) -> str:
        return f"{self.dropped} endpoints of {self.service} did not come back and are dropped"


@dataclass(frozen=True, slots=True)
class SnapshotLoaded(Event):
    """etcd does not answer: a service starts with the view saved ``age_s`` seconds ago."""

    level = logging.WARNING
    logger = "etcd_grpc.resolver"
    service: str
    path: str
    endpoints: int
    age_s: float

    def __str__(self) -> str:
        return (
            f"etcd does not answer; {self.service} starts with {self.endpoints} endpoints that were "
            f"saved {self.age_s:.0f} s ago in {self.path}"
        )


@dataclass(frozen=True, slots=True)
class SnapshotFailed(Event):
    """The view of a service could not be saved or read; only memory has it."""

    level = logging.WARNING
    logger = "etcd_grpc.resolver"
    service: str
    path: str
    why: str

    def __str__(self) -> str:
        return f"the saved view of {self.service} is of no use ({self.path}): {self.why}"


# TLS.


@dataclass(frozen=True, slots=True)
class InstanceRefused(Event):
    """There is no TLS connection to an instance; told again when the reason has changed."""

    level = logging.WARNING
    logger = "etcd_grpc.tls"
    service: str
    address: str
    why: str

    def __str__(self) -> str:
        return f"an instance of {self.service} cannot be connected: {self.why}"


@dataclass(frozen=True, slots=True)
class CertificateRotated(Event):
    """Certificates were replaced on disk: new connections use them."""

    logger = "etcd_grpc.tls"
    path: str
    facts: str

    def __str__(self) -> str:
        return f"{self.path} was replaced, and is in use{f': {self.facts}' if self.facts else ''}"


@dataclass(frozen=True, slots=True)
class CertificateRejected(Event):
    """What stands on disk cannot be used: the last good certificate stays.  Told once a content.

    ``count`` is how often that has happened to these files.
    """

    level = logging.WARNING
    logger = "etcd_grpc.tls"
    path: str
    why: str
    count: int

    def __str__(self) -> str:
        return f"{self.path} was replaced by what cannot be used; the one before stays: {self.why}"


# The endpoints of a channel.


@dataclass(frozen=True, slots=True)
class Misplaced(Event):
    """Another process answers at an endpoint's address than the one that registered it: no calls."""

    level = logging.WARNING
    logger = "etcd_grpc.channel"
    key: str
    expected: str
    found: str | None

    def __str__(self) -> str:
        who = "a server that tells no instance id" if self.found is None else f"instance {self.found}"
        return f"{self.key} gets no calls: {who} answers there, not instance {self.expected}"


@dataclass(frozen=True, slots=True)
class PanicStarted(Event):
    """So many endpoints of a service fail that calls go to all of them."""

    level = logging.WARNING
    logger = "etcd_grpc.channel"
    service: str

    def __str__(self) -> str:
        return f"too few endpoints of {self.service} are well: calls go to all of them (panic)"


@dataclass(frozen=True, slots=True)
class PanicEnded(Event):
    """Enough endpoints are well again: those that fail get no calls."""

    level = logging.WARNING
    logger = "etcd_grpc.channel"
    service: str

    def __str__(self) -> str:
        return f"enough endpoints of {self.service} are well again: calls go to those only"


# The service config that stands in etcd.


@dataclass(frozen=True, slots=True)
class ServiceConfigChanged(Event):
    """The service config in etcd is another one, or there is none any more (``found``)."""

    logger = "etcd_grpc.resolver"
    service: str
    revision: int
    found: bool
    policy: str

    def __str__(self) -> str:
        if not self.found:
            return f"{self.service} has no service config in etcd; channels use their own"
        policy = f" with policy {self.policy}" if self.policy else ""
        return f"{self.service} has a service config in etcd{policy}, revision {self.revision}"


@dataclass(frozen=True, slots=True)
class ServiceConfigRejected(Event):
    """What stands in etcd is no service config; the last good one stays."""

    level = logging.WARNING
    logger = "etcd_grpc.resolver"
    service: str
    revision: int
    why: str

    def __str__(self) -> str:
        return (
            f"the service config of {self.service} in etcd (revision {self.revision}) is not used, "
            f"the last good one stays: {self.why}"
        )


@dataclass(frozen=True, slots=True)
class ServiceConfigForbidden(Event):
    """etcd does not let us read the service config; channels use their own."""

    level = logging.WARNING
    logger = "etcd_grpc.resolver"
    service: str
    key: str
    why: str

    def __str__(self) -> str:
        return (
            f"the service config of {self.service} cannot be read, so channels use their own; permit "
            f"reading {self.key!r}, or set the channel option grpc.service_config_disable_resolution: "
            f"{self.why}"
        )


# A program beside which a sidecar runs.


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


# Listeners.


@dataclass(frozen=True, slots=True)
class Dropped(Event):
    """A listener was so slow that ``count`` events before this one were dropped."""

    level = logging.WARNING
    logger = "etcd_grpc.telemetry"
    count: int

    def __str__(self) -> str:
        return f"a listener is too slow; {self.count} events were dropped"


# Worker processes, as their parent sees them.


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
