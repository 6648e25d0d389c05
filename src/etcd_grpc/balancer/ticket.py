"""A pick yields a ticket, and a ticket is finished exactly once.

It counts a call as in flight, and tells the endpoint's statistics how it ended and how long it took.
Whose fault a failure is, is decided here, too: the answer NOT_FOUND is an answer, and a server that
gives it is well.  gRFC A50 counts every status but OK as a failure, and would eject a server because
its callers ask for what is not there.
"""

from __future__ import annotations

from collections.abc import Callable

import grpc

from etcd_grpc.balancer.load import Stats

__all__ = ["FAULTS", "Ticket", "verdict"]

# The codes that go-zero's breaker counts against a server, and UNKNOWN, which is what an exception in a
# Python handler becomes.
FAULTS = frozenset(
    {
        grpc.StatusCode.DATA_LOSS,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.UNKNOWN,
    }
)


def verdict(code: grpc.StatusCode) -> bool | None:
    """Whether the endpoint did its part; None if the call was cancelled, which says nothing of it."""
    if code is grpc.StatusCode.OK:
        return True
    return None if code is grpc.StatusCode.CANCELLED else code not in FAULTS


class Ticket:
    """One call under way at one endpoint.

    Args:
        stats: Of the endpoint that was picked.
        clock: The clock of these statistics.
    """

    __slots__ = ("_clock", "_in_flight", "_open", "_started_s", "_stats")

    def __init__(self, stats: Stats, clock: Callable[[], float]) -> None:
        self._stats = stats
        self._clock = clock
        self._in_flight = stats.in_flight
        self._open = [None]
        stats.picks += 1
        self._in_flight.append(None)
        self._started_s = clock()

    def finish(self, code: grpc.StatusCode) -> bool:
        """The call has ended.  Any thread; only the first time counts.

        Returns:
            Whether the policy should be given a ``tick`` now.
        """
        try:
            self._open.pop()  # atomic: one of two threads that get here fails
        except IndexError:
            return False
        self._in_flight.pop()
        now = self._clock()
        return self._stats.observe(verdict(code), now - self._started_s, now)
