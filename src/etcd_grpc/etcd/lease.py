"""One lease kept for ever: the state machine.  Pure: the time arrives as an argument, in seconds.

    state    event                              next state
    ABSENT   granted(id, ttl)                   HELD, generation + 1
    HELD     kept(ttl > 0)                      HELD, next beat after ttl / 3
    HELD     kept(ttl <= 0)                     ABSENT: etcd has forgotten the lease
    any      failed                             the same; the next attempt after the given delay

The rule: only etcd's own answer says that a lease is lost.  A clock of ours that runs past the TTL
proves nothing: etcd extends every lease when a new leader is elected, and a beat that arrives late
may still find it alive.  ``generation`` counts grants; whoever holds keys under the lease puts them
again when it has moved.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Grant", "KeepAlive", "LeaseMachine", "Wait"]

_BEATS_PER_TTL = 3


@dataclass(frozen=True, slots=True)
class Grant:
    """Ask etcd for a lease of ``ttl_s``."""

    ttl_s: int


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """Refresh ``lease_id``."""

    lease_id: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do before ``until`` (on the caller's monotonic clock)."""

    until: float


class LeaseMachine:
    """Decides when to grant and when to keep alive.

    Args:
        ttl_s: The TTL to ask for, in seconds.  etcd may grant a longer one; that one counts.
    """

    def __init__(self, ttl_s: int) -> None:
        self.ttl_s = ttl_s
        self.lease_id = 0
        self.generation = 0
        self.expires_at = 0.0
        self._due = 0.0

    @property
    def held(self) -> bool:
        """Whether, as far as etcd has told us, the lease exists."""
        return self.lease_id != 0

    def next_action(self, now: float) -> Grant | KeepAlive | Wait:
        """What to do at ``now``."""
        if now < self._due:
            return Wait(self._due)
        return KeepAlive(self.lease_id) if self.held else Grant(self.ttl_s)

    def granted(self, lease_id: int, ttl_s: int, asked_at: float) -> None:
        """etcd granted a lease; ``asked_at`` is when the request left."""
        self.lease_id = lease_id
        self.generation += 1
        self._alive(ttl_s, asked_at)

    def kept(self, ttl_s: int, asked_at: float) -> None:
        """etcd answered a keepalive with the TTL that remains; 0 or less: the lease is gone."""
        if ttl_s > 0:
            self._alive(ttl_s, asked_at)
        else:
            self.lost()

    def lost(self) -> None:
        """The lease is gone: grant a new one at once."""
        self.lease_id = 0
        self._due = 0.0

    def failed(self, now: float, delay_s: float) -> None:
        """A request came to nothing: try again after ``delay_s``."""
        self._due = now + delay_s

    def _alive(self, ttl_s: int, asked_at: float) -> None:
        self.expires_at = asked_at + ttl_s
        self._due = asked_at + ttl_s / _BEATS_PER_TTL
