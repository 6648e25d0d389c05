"""The session with etcd."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from etcd_grpc.telemetry.events.base import Event

__all__ = [
    "AuthenticationRefused",
    "Compacted",
    "Connected",
    "Disconnected",
    "Moved",
    "Reconnected",
    "StoreReplaced",
    "WatchRefused",
]


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
