"""Whose key is it: what a registrar does about a key that somebody else has written.  Pure.

The rules, for a key found with another value or under another lease than we meant to give it:

    found there                         we                            verdict
    nothing                             any                           PUT
    our value, under our present lease  any                           STANDS
    something under a lease of ours     any                           PUT (over our own older one)
    something without a lease           any                           PUT (an edit by hand)
    something under a foreign lease     have stood here before        YIELD (two must not fight)
                                        come new, key is an address   PUT (it is us who listen there)
                                        come new, key is a chosen id  CONTEST (a restart, or a double?)

A contest is decided by the lease: who lives refreshes it every third of its TTL, as every etcd client
does.  So a remaining time that has risen is a sign of life, and one far below two thirds, of death.
"""

from __future__ import annotations

import enum
from collections.abc import Container
from dataclasses import dataclass

__all__ = ["Found", "Holder", "Life", "Verdict", "judge"]

_BEATS_PER_TTL = 3
_LATE_S = 1.0  # a beat may come so much later than it should
_ROUNDED_S = 1.0  # etcd tells whole seconds, rounded down


@dataclass(frozen=True, slots=True)
class Found:
    """What stands at a key.

    Attributes:
        value: The value.
        lease: The id of its lease; 0: none.
        revision: Its ``mod_revision``.
    """

    value: bytes
    lease: int
    revision: int


class Verdict(enum.Enum):
    """What to do about it."""

    STANDS = enum.auto()
    PUT = enum.auto()
    YIELD = enum.auto()
    CONTEST = enum.auto()


def judge(
    found: Found | None, value: bytes, lease: int, ours: Container[int], *, stood: bool, named: bool
) -> Verdict:
    """Apply the rules.

    Args:
        found: What stands at the key; None: nothing.
        value: What we want there.
        lease: The id of our present lease.
        ours: The ids of all leases that this process has had.
        stood: Whether we have stood at this key before.
        named: Whether the key is an id that the user has chosen, rather than an address.
    """
    if found is None:
        return Verdict.PUT
    if found.lease == lease and found.value == value:
        return Verdict.STANDS
    if not found.lease or found.lease in ours:
        return Verdict.PUT
    if stood:
        return Verdict.YIELD
    return Verdict.CONTEST if named else Verdict.PUT


class Life(enum.Enum):
    """What is known of the process behind a lease."""

    ALIVE = enum.auto()
    GONE = enum.auto()
    UNKNOWN = enum.auto()


class Holder:
    """Watches the remaining time of somebody else's lease, in seconds on one monotonic clock."""

    def __init__(self) -> None:
        self._ends_at: float | None = None

    def observe(self, remaining_s: int, granted_s: int, now: float) -> Life:
        """etcd said at ``now`` that ``remaining_s`` of ``granted_s`` are left; below 0: it is gone."""
        unrefreshed = granted_s - granted_s / _BEATS_PER_TTL
        if remaining_s < 0 or remaining_s < unrefreshed - _LATE_S - _ROUNDED_S:
            return Life.GONE
        ends_at = now + remaining_s
        if self._ends_at is not None and ends_at > self._ends_at + _ROUNDED_S:
            return Life.ALIVE
        self._ends_at = ends_at if self._ends_at is None else min(ends_at, self._ends_at)
        return Life.UNKNOWN
