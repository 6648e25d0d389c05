"""How late an application's event loop is, measured from the control loop: so also while it is blocked.

A heartbeat is a callback that is posted to the loop.  It notes when it ran; the next look compares that
with when it was posted.  One that has not run yet is as late as it has been under way.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from etcd_grpc.posting import post
from etcd_grpc.server.lag import LagJudge
from etcd_grpc.server.lifecycle import Event

__all__ = ["Heartbeat"]

_INTERVAL_S = 0.25


class Heartbeat:
    """Watches one event loop until ``over``.  On the control loop, but for the beat itself.

    Args:
        control: The loop from which it is watched.
        watched: The application's loop.
        max_lag_s: The bound of ``LagJudge``.
        tell: Called with ``LAGGED`` or ``RECOVERED`` when that has become so, and the lag in seconds.
        over: Whether nobody cares any more.
    """

    def __init__(
        self,
        control: asyncio.AbstractEventLoop,
        watched: asyncio.AbstractEventLoop,
        max_lag_s: float,
        tell: Callable[[Event, float], object],
        over: Callable[[], bool],
    ) -> None:
        self._control = control
        self._watched = watched
        self._judge = LagJudge(max_lag_s)
        self._tell = tell
        self._over = over
        self._interval_s = min(_INTERVAL_S, max_lag_s / 2)
        self._posted_at = 0.0
        self._ran_at: float | None = 0.0  # None: it is under way
        self.lag_s = 0.0

    def start(self) -> None:
        """Begin."""
        self._post()

    def _post(self) -> None:
        self._ran_at = None
        self._posted_at = time.monotonic()
        if post(self._watched, self._beat):  # else the application has ended its loop
            self._control.call_later(self._interval_s, self._look)

    def _beat(self) -> None:
        """On the watched loop."""
        self._ran_at = time.monotonic()

    def _look(self) -> None:
        if self._over():
            return
        now, ran_at = time.monotonic(), self._ran_at
        self.lag_s = (now if ran_at is None else ran_at) - self._posted_at
        event = self._judge.judge(self.lag_s, now)
        if event is not None:
            self._tell(event, self.lag_s)
        if ran_at is None:
            self._control.call_later(self._interval_s, self._look)
        else:
            self._post()
