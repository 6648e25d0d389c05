"""When to say that something is broken, and when that it is well again.  Pure: the time is an argument.

A retry every second, or a link that flaps, must not fill a log.  So a failure is told if none was in
``REMIND_S`` seconds, and an end only if its beginning was.
"""

from __future__ import annotations

import math

__all__ = ["Outage"]

REMIND_S = 30.0


class Outage:
    """The times of one thing that works or does not, in seconds."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._told_at = -math.inf
        self.told = False  # of the present outage, or the last one

    @property
    def broken(self) -> bool:
        """Whether it does not work now."""
        return self._since is not None

    def failed(self, now: float) -> bool:
        """It failed at ``now``; return whether to say so."""
        if self._since is None:
            self._since = now
            self.told = False
        if now - self._told_at < REMIND_S:
            return False
        self._told_at = now
        self.told = True
        return True

    def worked(self, now: float) -> float | None:
        """It works at ``now``; if it did not before, return for how long it had not."""
        since, self._since = self._since, None
        return None if since is None else now - since
