"""When the policy of a channel decides anew: at its own time, and soon after a call that may matter.

Many calls share one tick; in a large set, where a tick costs time in proportion to its size, there is
one every 100 ms at most.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["Ticker"]


class Ticker:
    """Ticks of one set; on its loop, except ``soon``.

    Args:
        loop: The loop, whose clock is the policy's.
        tick: Lets the policy decide anew.
        next_tick: When it wants to; None: not before it is asked.
        interval_s: The least time between two ticks now.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        tick: Callable[[], None],
        next_tick: Callable[[], float | None],
        interval_s: Callable[[], float],
    ) -> None:
        self._loop = loop
        self._decide = tick
        self._next_tick = next_tick
        self._interval_s = interval_s
        self._timer: asyncio.TimerHandle | None = None
        self._asked = False
        self._ticked_at: float | None = None

    def soon(self) -> None:
        """A call has ended in a way that may change what the policy decides.  Any thread."""
        if not self._asked:
            self._asked = True
            self._loop.call_soon_threadsafe(self._when_due)

    def wait(self) -> None:
        """Wake up when the policy wants to decide anew."""
        if self._asked:
            return  # a tick is on its way
        self.close()
        due = self._next_tick()
        if due is not None:
            self._timer = self._loop.call_at(due, self._tick)

    def close(self) -> None:
        """Wake up no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _when_due(self) -> None:
        due = self._loop.time()
        if self._ticked_at is not None:
            due = max(due, self._ticked_at + self._interval_s())
        self.close()
        self._timer = self._loop.call_at(due, self._tick)

    def _tick(self) -> None:
        self._asked = False
        self._ticked_at = self._loop.time()
        self._decide()
        self.wait()
