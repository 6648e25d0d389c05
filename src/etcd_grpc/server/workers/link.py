"""What a worker process and its parent say to each other, over a socket that both watch.

The end of the socket tells each that the other is gone, in whatever way it ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from etcd_grpc.server.load_meter import Counts

__all__ = [
    "Counted",
    "Failed",
    "FromParent",
    "FromWorker",
    "Go",
    "Hurry",
    "Leave",
    "Loaded",
    "Order",
    "Ready",
]


@dataclass(frozen=True, slots=True)
class Order:
    """The first thing that a worker is told.

    Attributes:
        place: Its number among the workers, from 0.
        preparation: What ``multiprocessing`` needs to make the process look like its parent.
        job: A pickled ``Job``; what it refers to can be imported only after the preparation.
    """

    place: int
    preparation: Mapping[str, Any]
    job: bytes


@dataclass(frozen=True, slots=True)
class Loaded:
    """The application is imported."""


@dataclass(frozen=True, slots=True)
class Ready:
    """It serves, at this address, as this instance."""

    address: str
    instance: str


@dataclass(frozen=True, slots=True)
class Failed:
    """It ends because of an error that needs no traceback, of this class of ``etcd_grpc.errors``."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Counted:
    """Its calls so far; told once a second while they change, and at the end."""

    counts: Counts


@dataclass(frozen=True, slots=True)
class Go:
    """Serve."""


@dataclass(frozen=True, slots=True)
class Leave:
    """Leave in order."""


@dataclass(frozen=True, slots=True)
class Hurry:
    """Skip what is left of leaving."""


FromWorker: TypeAlias = Loaded | Ready | Failed | Counted
FromParent: TypeAlias = Order | Go | Leave | Hurry
