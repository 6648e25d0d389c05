"""Whether an event loop lags so much that its instance should take no calls.  Pure.

The rule: one late heartbeat is enough to leave, a calm time is needed to come back, so that an instance
that is at its limit does not flap.
"""

from __future__ import annotations

from etcd_grpc.server.lifecycle import Event

__all__ = ["LagJudge"]

# Well again means: below half of the bound, for twice the bound, and for a second at least.
_CALM_PART = 0.5
_CALM_TIMES = 2.0
_CALM_LEAST_S = 1.0


class LagJudge:
    """Judges heartbeats, in the order of their time.

    Args:
        max_lag_s: The bound, in seconds.
    """

    def __init__(self, max_lag_s: float) -> None:
        self._max_lag_s = max_lag_s
        self._calm_s = max(_CALM_LEAST_S, _CALM_TIMES * max_lag_s)
        self._calm_since: float | None = None
        self.lagging = False

    def judge(self, lag_s: float, now: float) -> Event | None:
        """``lag_s`` is how late a heartbeat came, or how late it is if it has not come yet.

        Returns:
            ``LAGGED`` or ``RECOVERED`` when that has become so, else None.
        """
        if lag_s > self._max_lag_s:
            self._calm_since = None
            if not self.lagging:
                self.lagging = True
                return Event.LAGGED
        elif lag_s > _CALM_PART * self._max_lag_s:
            self._calm_since = None
        elif self.lagging:
            if self._calm_since is None:
                self._calm_since = now
            if now - self._calm_since >= self._calm_s:
                self.lagging = False
                return Event.RECOVERED
        return None
