"""When to say that something is broken, and when that it is well again.  Pure: the time is an argument.

A retry every second must not fill a log.  The first failure is told, then one in ``REMIND_S`` seconds,
and the end, with how long it took.
"""

from __future__ import annotations

__all__ = ["Outage"]

REMIND_S = 30.0


class Outage:
    """The times of one thing that works or does not, in seconds."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._told = 0.0

    def failed(self, now: float) -> bool:
        """It failed at ``now``; return whether to say so."""
        if self._since is None:
            self._since = self._told = now
            return True
        if now - self._told >= REMIND_S:
            self._told = now
            return True
        return False

    def worked(self, now: float) -> float | None:
        """It works at ``now``; if it did not before, return for how long it had not."""
        since, self._since = self._since, None
        return None if since is None else now - since
