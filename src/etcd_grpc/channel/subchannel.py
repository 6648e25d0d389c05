"""One endpoint and the real channel to it: whether it is connected, and who has calls on it.

Who is connected is asked, not subscribed to: ``subchannel_set`` does it on its loop, and so does a
pick, unless an answer has just come from there: it saves the call from a connection that has just gone.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

import grpc

from etcd_grpc.balancer.load import Stats
from etcd_grpc.channel.connectivity import READY, Probe, probe_of, state_of
from etcd_grpc.channel.ways import Way
from etcd_grpc.model import Endpoint

__all__ = ["SURE_S", "Connector", "Subchannel", "Verdict"]

C = TypeVar("C", bound=grpc.Channel | grpc.aio.Channel)


# Where a call that ended well began at most so long ago, the connection is not asked whether it is
# still there.  Should it have gone meanwhile, the next call is refused before it has left, and is sent
# elsewhere.
SURE_S = 0.005


class Connector(Protocol[C]):
    """Makes and closes real channels, in the world to which they belong."""

    def connect(self, address: str, way: Way) -> C:
        """A channel to ``host:port``.  Does not block."""

    def ask(self, channel: C, answered: Callable[[Any], None]) -> None:
        """Ask who is there; ``answered`` gets an ``identity_check.Answer``, on any thread.

        Raises:
            ValueError: The channel is closed.
        """

    def close(self, channel: C) -> None:
        """Close a channel, and with it the calls on it."""


class Verdict(enum.Enum):
    """Whether the process at an address is the one that registered it."""

    UNKNOWN = enum.auto()  # not asked yet, on this connection
    UNJUDGED = enum.auto()  # it did not say in time
    RIGHT = enum.auto()
    WRONG = enum.auto()


class Subchannel(Generic[C]):
    """One endpoint and the real channel to it: a ``Candidate`` of the policy.

    ``stats`` are the endpoint's and outlive the subchannel; ``in_flight`` are the calls on this one,
    one item for each.  Appending to and popping from a list is atomic, so the count is exact without a
    lock.
    """

    __slots__ = (
        "answers",
        "asked_at",
        "channel",
        "closed",
        "ended",
        "endpoint",
        "failure",
        "in_flight",
        "judged_at",
        "probe",
        "reported",
        "state",
        "stats",
        "sure_until",
        "verdict",
        "way",
    )

    def __init__(self, endpoint: Endpoint, channel: C, stats: Stats, way: Way) -> None:
        self.endpoint = endpoint
        self.stats = stats
        self.channel = channel
        self.way = way
        self.probe: Probe = probe_of(channel)
        in_flight = stats.connect()
        self.in_flight = in_flight
        self.ended: Callable[[object], None] = lambda _call: in_flight.pop()  # a done callback
        self.state = grpc.ChannelConnectivity.IDLE
        self.sure_until = 0.0  # on time.monotonic's clock; see SURE_S
        self.reported = False
        self.failure = ""  # why it cannot be connected, as far as that was asked
        self.closed = False
        self.verdict = Verdict.UNKNOWN
        self.answers: str | None = None  # the id of whoever answers there, where it is another
        self.asked_at: float | None = None  # while an answer is awaited
        self.judged_at: float | None = None

    def began(self) -> float:
        """A call begins here; returns when, on time.monotonic's clock."""
        self.stats.picks += 1
        self.in_flight.append(None)
        return time.monotonic()

    def follow(self, endpoint: Endpoint, stats: Stats) -> None:
        """The entry was changed, perhaps by another process at the same address."""
        if endpoint.id != self.endpoint.id:
            self.judged_at = None  # it stays as it is until it has been asked again
        self.endpoint = endpoint
        self.stats = stats
        stats.in_flight = self.in_flight

    @property
    def misplaced(self) -> bool:
        """Whether another process answers there."""
        return self.verdict is Verdict.WRONG and self.endpoint.identified

    def told_why(self) -> str:
        """Why it gets no calls although it is connected; "" if it does."""
        if not self.misplaced:
            return ""
        who = "a server without an id" if self.answers is None else f"instance {self.answers}"
        return f"{who} answers there, not {self.endpoint.id} ({self.endpoint.address})"

    @property
    def unasked(self) -> bool:
        """Whether it is not known yet who answers there, where it can be."""
        return self.verdict is Verdict.UNKNOWN and self.endpoint.identified

    def connected(self) -> bool:
        """Whether a call could leave at this moment.  Any thread."""
        try:
            return self.probe(False) == READY
        except ValueError:  # closed meanwhile
            return False

    def look(self) -> bool:
        """Update ``state``, connecting if need be; return whether it changed.

        A subchannel that has failed counts as failing until it is connected again, however often it
        tries meanwhile: gRPC's rule for ``round_robin``, without which fail-fast calls would wait.
        A connection counts as being made until it is known who answers, and as failing if it is
        another process.
        """
        before, now = self.state, state_of(self.probe(True))
        if now is grpc.ChannelConnectivity.READY:
            self.failure = ""
        if now is not grpc.ChannelConnectivity.READY:
            self.verdict = Verdict.UNKNOWN
        elif self.unasked:
            now = grpc.ChannelConnectivity.CONNECTING
        elif self.misplaced:
            now = grpc.ChannelConnectivity.TRANSIENT_FAILURE
        failing = before is grpc.ChannelConnectivity.TRANSIENT_FAILURE
        if failing and now is not grpc.ChannelConnectivity.READY:
            return False
        self.state = now
        return now is not before
