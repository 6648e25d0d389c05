"""What stands in etcd for a service: its instances, its service config, and how old the view is."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from etcd_grpc.model import Change
from etcd_grpc.telemetry.events.base import Event

__all__ = [
    "Changed",
    "EntryRejected",
    "Fresh",
    "HoldEnded",
    "HoldStarted",
    "Relisted",
    "Resolved",
    "ServiceConfigChanged",
    "ServiceConfigForbidden",
    "ServiceConfigLoaded",
    "ServiceConfigRejected",
    "SnapshotFailed",
    "SnapshotLoaded",
    "Stale",
]


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
    """The view of a service, or its service config, could not be saved or read; only memory has it."""

    level = logging.WARNING
    logger = "etcd_grpc.resolver"
    service: str
    path: str
    why: str

    def __str__(self) -> str:
        return f"the saved view of {self.service} is of no use ({self.path}): {self.why}"


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
class ServiceConfigLoaded(Event):
    """None can be had from etcd: a service starts with the one that was saved ``age_s`` seconds ago."""

    level = logging.WARNING
    logger = "etcd_grpc.resolver"
    service: str
    path: str
    age_s: float

    def __str__(self) -> str:
        return (
            f"no service config can be had from etcd; {self.service} starts with the one that was "
            f"saved {self.age_s:.0f} s ago in {self.path}"
        )


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
