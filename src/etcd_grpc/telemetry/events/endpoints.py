"""The endpoints of a channel: who answers there, who is called, and with which certificates."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from etcd_grpc.telemetry.events.base import Event

__all__ = [
    "CertificateRejected",
    "CertificateRotated",
    "InstanceRefused",
    "Misplaced",
    "PanicEnded",
    "PanicStarted",
]


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
