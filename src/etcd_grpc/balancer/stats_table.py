"""Whose statistics are whose: they survive every update of the set, and are forgotten in the end.

An endpoint is its key; but another address, or another process (``Endpoint.id``), under the same key
is something else, of which nothing is known yet: it starts anew, with a new ramp.  One that leaves
and comes back soon finds its statistics again, so a server that fails and registers again and again
stays ejected.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from etcd_grpc.balancer.load import Average, Stats
from etcd_grpc.model import Endpoint

__all__ = ["StatsTable"]

_KEEP_S = 300.0  # the longest ejection (gRFC A50)
_KEEP_MOST = 1000  # a set that changes all the time must not fill the memory

_Identity = tuple[str, str, str]


class StatsTable:
    """The statistics of one channel's endpoints.

    Args:
        clock: Seconds, monotonic; the policies' clock.
        keep_s: How long to remember an endpoint that has left.
    """

    def __init__(self, clock: Callable[[], float], keep_s: float = _KEEP_S) -> None:
        self.average = Average()
        self._clock = clock
        self._keep_s = keep_s
        self._present: dict[str, tuple[_Identity, Stats]] = {}
        self._departed: OrderedDict[_Identity, tuple[float, Stats]] = OrderedDict()  # the oldest first

    def enter(self, endpoint: Endpoint) -> Stats:
        """The statistics of an endpoint that appeared or was changed."""
        identity = (endpoint.key, endpoint.address, endpoint.id)
        known = self._present.get(endpoint.key)
        if known is not None and known[0] == identity:
            return known[1]
        self.leave(endpoint.key)
        _, stats = self._departed.pop(identity, (0.0, None))
        if stats is None:
            stats = Stats(self.average, self._clock())
        self._present[endpoint.key] = (identity, stats)
        return stats

    def leave(self, key: str) -> None:
        """The endpoint under ``key`` has left, if it was there."""
        now = self._clock()
        known = self._present.pop(key, None)
        if known is not None:
            self._departed[known[0]] = (now, known[1])
        while self._departed:
            left_s, _ = next(iter(self._departed.values()))
            if len(self._departed) <= _KEEP_MOST and now - left_s <= self._keep_s:
                break
            self._departed.popitem(last=False)

    def forgive(self) -> None:
        """Nobody ejects endpoints any more: those that are ejected get calls again."""
        for _, stats in (*self._present.values(), *self._departed.values()):
            stats.ejection = None
            stats.alarm_at = 0

    def __len__(self) -> int:
        """How many endpoints are there."""
        return len(self._present)
