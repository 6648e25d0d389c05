"""Instances that stand in etcd, and their leases."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from etcd_grpc.telemetry.events.base import Event

__all__ = [
    "KeyLost",
    "LeaseGranted",
    "LeaseLost",
    "Registered",
    "RegistrationFailed",
    "RegistrationOvertaken",
    "Withdrawn",
]


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
