"""When a set publishes a new picker.

One costs time in proportion to the set.  So small sets get one at every change, and a large one that
changes all the time gets ten a second.  The first one waits a moment for endpoints that still connect.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["Publisher"]

_LARGE = 500
_INTERVAL_S = 0.1
# Else the first calls, often a burst, would all go to whichever endpoint was the first to connect.
_FIRST_S = 0.02


class Publisher:
    """The times of one set; on its loop.

    Args:
        loop: The loop.
        publish: Makes a picker and publishes it; called in a turn of the loop of its own.
        size: How large the set is now.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, publish: Callable[[], None], size: Callable[[], int]
    ) -> None:
        self._loop = loop
        self._publish = publish
        self._size = size
        self._next: asyncio.Handle | None = None
        self._at = -_INTERVAL_S  # the last time
        self._first_until: float | None = None  # set by the first endpoints
        self._first: asyncio.TimerHandle | None = None

    @property
    def interval_s(self) -> float:
        """The least time between two pickers now."""
        return _INTERVAL_S if self._size() >= _LARGE else 0.0

    def soon(self) -> None:
        """Something has changed."""
        if self._next is None:
            due = self._at + self.interval_s
            if due <= self._loop.time():
                self._next = self._loop.call_soon(self._run)
            else:
                self._next = self._loop.call_at(due, self._run)

    def is_early(self, connecting: Callable[[], bool]) -> bool:
        """Whether to wait; if not, this is the time of a picker.

        Args:
            connecting: Whether an endpoint has not yet shown if it can be reached.
        """
        now = self._loop.time()
        if self._first_until is None and self._size():
            self._first_until = now + _FIRST_S
            self._first = self._loop.call_at(self._first_until, self.soon)
        if self._first_until is not None and now < self._first_until and connecting():
            return True
        self._at = now
        return False

    def close(self) -> None:
        """Publish no more."""
        for timer in (self._next, self._first):
            if timer is not None:
                timer.cancel()

    def _run(self) -> None:
        self._next = None
        self._publish()
