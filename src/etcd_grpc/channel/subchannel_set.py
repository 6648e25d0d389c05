"""The real channels under a balanced one, and the picker over those that are connected.

A ``SubchannelSet`` lives on one event loop: the session's for a synchronous channel, the
application's for an asyncio one.  Only that loop changes it, so nothing here is locked.  Other threads
read ``picker``, which is replaced by one assignment, and report what they find broken.

Who is connected is asked, not subscribed to: often while an endpoint connects (after 1 ms, then by and
by every 50 ms), seldom while it cannot be reached, once a second while all is well; and at every pick,
where the answer costs half a microsecond and saves the call from a connection that has just gone.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

import grpc

from etcd_grpc.balancer.balancer import Balancer
from etcd_grpc.balancer.base import Picker
from etcd_grpc.balancer.load import Stats
from etcd_grpc.balancer.stats_table import StatsTable
from etcd_grpc.channel.backlog import Backlog
from etcd_grpc.channel.identity_check import IdentityCheck
from etcd_grpc.channel.leaving import Leaving
from etcd_grpc.channel.members import Members
from etcd_grpc.channel.publisher import Publisher
from etcd_grpc.channel.rivals import Rivals
from etcd_grpc.channel.subchannel import Connector, Subchannel
from etcd_grpc.channel.ticker import Ticker
from etcd_grpc.channel.ways import Way, Ways
from etcd_grpc.model import Change, Endpoint, Put
from etcd_grpc.telemetry import emit, events

__all__ = ["SubchannelSet"]

C = TypeVar("C", bound=grpc.Channel | grpc.aio.Channel)

_SWEEP_S = 1.0
_POLL_FIRST_S = 0.001
_POLL_FACTOR = 1.4
_POLL_CONNECTING_S = 0.05
_POLL_BACKLOG_S = 0.005  # while others wait for those that connect
_POLL_FAILING_S = 0.2
_CONNECTING_AT_ONCE = 100
_UNDECIDED = (grpc.ChannelConnectivity.IDLE, grpc.ChannelConnectivity.CONNECTING)


class SubchannelSet(Generic[C]):
    """All subchannels of one balanced channel.

    Args:
        loop: The loop on which everything but ``report`` and reading ``picker`` happens.
        connector: Makes the real channels.
        balancer: Makes the pickers.
        stats: What is known of each endpoint.
        on_change: Called on the loop after ``picker`` or ``state`` may have changed.
        ways: How endpoints can be connected.
        rng: Orders what is not to happen everywhere at once.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connector: Connector[C],
        balancer: Balancer,
        stats: StatsTable,
        on_change: Callable[[], None],
        ways: Ways,
        rng: random.Random,
    ) -> None:
        self._loop = loop
        self._connector = connector
        self._balancer = balancer
        self._stats = stats
        self._on_change = on_change
        self._subchannels: dict[str, Subchannel[C]] = {}
        self._backlog = Backlog(loop, self._connect, self._has_room, self._poll_if_idle)
        self._leaving: Leaving[C] = Leaving(loop, connector)
        self._unready: dict[str, Subchannel[C]] = {}
        self._ways = ways
        self._identity: IdentityCheck[C] = IdentityCheck(loop, connector, self._judged)
        self._rivals: Rivals[C] = Rivals(ways, self._connect_beside, self._leaving.end, rng)
        self._undecided = False  # whether the last poll has left rivals that are
        self._poll_s = _POLL_FIRST_S
        self._poll_timer: asyncio.TimerHandle | None = None
        self._sweep_timer: asyncio.TimerHandle | None = None
        self._publisher = Publisher(loop, self._publish, lambda: len(self._subchannels))
        self._members = Members()  # also those that the policy leaves out
        self._ticker = Ticker(
            loop,
            self._tick,
            self._next_tick,
            lambda: self._publisher.interval_s,
        )
        self.picker: Picker[Subchannel[C]] | None = None
        self.state = grpc.ChannelConnectivity.CONNECTING

    @property
    def subchannels(self) -> dict[str, Subchannel[C]]:
        """By the endpoint's key."""
        return self._subchannels

    @property
    def balancer(self) -> Balancer:
        """The policy as it is driven."""
        return self._balancer

    @property
    def left_out(self) -> int:
        """How many endpoints would take calls, and get none by the policy."""
        takes = len(self._members.eligible())
        return max(0, takes - len(self._subchannels) - len(self._backlog))

    def failing(self) -> Iterator[Subchannel[C]]:
        """Those to which there is no connection, in whatever way it was tried.  On the loop."""
        for key, subchannel in self._unready.items():
            failing = subchannel.state is grpc.ChannelConnectivity.TRANSIENT_FAILURE
            if failing and not self._rivals.trying(key):
                yield subchannel

    # On the loop.

    def update(self, changes: Sequence[Change]) -> None:
        """Follow changes of the endpoints."""
        self._members.note(changes)
        self._follow(self._selected(changes) if self._balancer.selects else changes)

    def follow_policy(self, balancer: Balancer) -> None:
        """Another policy decides from now on; what is known of the endpoints stays."""
        self._balancer = balancer
        if not balancer.config.ejects:
            self._stats.forgive()
        self._follow(self._selected(()))

    def _follow(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if isinstance(change, Put) and change.endpoint.takes_calls:
                self._put(change.endpoint)
            else:
                self._remove(change.key)
        self._backlog.work()
        if self._sweep_timer is None:
            self._sweep_timer = self._loop.call_later(_SWEEP_S, self._sweep)
        self._publisher.soon()
        self._poll_soon()

    def renew(self, *, even_failing: bool = False) -> None:
        """Connections are made in another way from now on: connect everything anew, and lose no call.

        Args:
            even_failing: A new connection that fails takes the place of the old one, too.
        """
        self._ways.renew()
        self._rivals.renew(self._subchannels, even_failing=even_failing)
        self._poll_s = _POLL_FIRST_S
        self._poll_soon()

    def close(self) -> None:
        """Close every channel, and the calls on them."""
        for timer in (self._poll_timer, self._sweep_timer):
            if timer is not None:
                timer.cancel()
        self._publisher.close()
        self._ticker.close()
        self._backlog.close()
        self.picker = None
        self.state = grpc.ChannelConnectivity.SHUTDOWN
        for subchannel in self._subchannels.values():
            self._leaving.end(subchannel)
        self._leaving.close()
        self._rivals.close()
        self._identity.close()
        self._subchannels.clear()
        self._unready.clear()

    # From any thread.

    def report(self, subchannel: Subchannel[C]) -> None:
        """Somebody picked ``subchannel`` and found it not connected."""
        if not subchannel.reported:
            subchannel.reported = True
            self._loop.call_soon_threadsafe(self._reported, subchannel)

    def tick_soon(self) -> None:
        """A call has ended in a way that may change what the policy decides.  Many share one tick."""
        self._ticker.soon()

    # On the loop, inside.

    def _selected(self, changes: Sequence[Change]) -> list[Change]:
        before = (*self._subchannels, *self._backlog)
        return self._members.selected(self._balancer, changes, before)

    def _next_tick(self) -> float | None:
        return self._balancer.next_tick()

    def _tick(self) -> None:
        if self._balancer.tick():
            self._publisher.soon()

    def _put(self, endpoint: Endpoint) -> None:
        known = self._subchannels.get(endpoint.key)
        if known is not None:
            same = known.endpoint.address == endpoint.address
            if same and known.state is not grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                known.follow(endpoint, self._stats.enter(endpoint))
                return
            # Another address; or it was written again, so a new process may be listening there: do not
            # wait for the end of gRPC's reconnect backoff.
            self._remove(endpoint.key)
        self._backlog.put(endpoint)
        self._poll_s = _POLL_FIRST_S

    def _connect(self, endpoint: Endpoint) -> None:
        way = self._ways.first()
        channel = self._connector.connect(endpoint.address, way)
        subchannel = Subchannel(endpoint, channel, self._stats.enter(endpoint), way)
        self._subchannels[endpoint.key] = subchannel
        self._unready[endpoint.key] = subchannel
        subchannel.look()

    def _remove(self, key: str) -> None:
        self._backlog.drop(key)
        subchannel = self._subchannels.pop(key, None)
        if subchannel is not None:
            self._stats.leave(key)
            self._unready.pop(key, None)
            self._rivals.drop(key)
            self._leaving.let_go(subchannel)

    def _connect_beside(self, holder: Subchannel[C], way: Way) -> Subchannel[C]:
        """Another connection to the same endpoint.  Until it wins, it counts nothing."""
        channel = self._connector.connect(holder.endpoint.address, way)
        rival = Subchannel(holder.endpoint, channel, Stats(self._stats.average, 0.0), way)
        rival.look()
        return rival

    def _replace(self, key: str, winner: Subchannel[C]) -> None:
        """A rival is connected: it takes the calls from now on."""
        before = self._subchannels[key]
        winner.follow(before.endpoint, before.stats)
        self._subchannels[key] = winner
        self._unready.pop(key, None)
        if winner.state is grpc.ChannelConnectivity.READY:
            self._ways.worked(winner.way)
        else:
            self._unready[key] = winner
        self._leaving.let_go(before)

    def _reported(self, subchannel: Subchannel[C]) -> None:
        subchannel.reported = False
        key = subchannel.endpoint.key
        if self._subchannels.get(key) is subchannel and subchannel.look():
            self._lost(key, subchannel)

    def _connected(self, key: str, subchannel: Subchannel[C]) -> None:
        """It is connected, as far as it goes: its certificates may be outdated."""
        self._ways.worked(subchannel.way)
        if self._ways.current(subchannel.way):
            self._rivals.drop(key)

    def _lost(self, key: str, subchannel: Subchannel[C]) -> None:
        """A connected subchannel changed its state."""
        if subchannel.state is not grpc.ChannelConnectivity.READY:
            self._unready[key] = subchannel
            self._rivals.challenge(key, subchannel, self._loop.time())
            self._poll_s = _POLL_FIRST_S
            self._publisher.soon()
            self._poll_soon()

    def _sweep(self) -> None:
        self._sweep_timer = self._loop.call_later(_SWEEP_S, self._sweep)
        for key, subchannel in self._subchannels.items():
            if key not in self._unready and subchannel.look():
                self._lost(key, subchannel)
        self._identity.ask_again(self._subchannels.values())

    def _judged(self, subchannel: Subchannel[C]) -> None:
        """It is known now who answers at its address, or that it does not say."""
        key = subchannel.endpoint.key
        if subchannel.misplaced and self._subchannels.get(key) is subchannel:
            emit(events.Misplaced(key, subchannel.endpoint.id, subchannel.answers))
            if key not in self._unready:
                subchannel.look()
                self._lost(key, subchannel)
        self._poll_s = _POLL_FIRST_S
        self._poll_soon()

    def _ask(self, subchannel: Subchannel[C]) -> None:
        if subchannel.unasked and subchannel.connected():
            self._identity.ask(subchannel)

    def _has_room(self) -> bool:
        """Whether few enough endpoints are being connected."""
        undecided = sum(s.state in _UNDECIDED for s in self._unready.values())
        return undecided < _CONNECTING_AT_ONCE

    def _poll_if_idle(self) -> None:
        if self._poll_timer is None:
            self._poll_soon()

    def _poll_soon(self) -> None:
        if self._poll_timer is not None:
            self._poll_timer.cancel()
            self._poll_timer = None
        if self._unready or self._rivals:
            self._poll_timer = self._loop.call_later(self._poll_s, self._poll)

    def _poll(self) -> None:
        self._poll_timer = None
        now = self._loop.time()
        changed = False
        connecting = False
        for key, subchannel in tuple(self._unready.items()):
            changed |= subchannel.look()
            self._ask(subchannel)
            if subchannel.state is grpc.ChannelConnectivity.READY:
                del self._unready[key]
                self._connected(key, subchannel)
                changed = True  # also if a report was the first to see it
                continue
            if subchannel.state is not grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                connecting = True
            self._rivals.challenge(key, subchannel, now)
        for key, winner in self._rivals.poll(self._subchannels, now):
            self._replace(key, winner)
            changed = True
        for rival in self._rivals:
            self._ask(rival)
        undecided = self._rivals.undecided(now)
        changed |= undecided is not self._undecided  # it counts in the state of the set
        self._undecided = undecided
        connecting |= undecided
        slowest = _POLL_CONNECTING_S if connecting else _POLL_FAILING_S
        slowest = _POLL_BACKLOG_S if connecting and self._backlog else slowest
        self._poll_s = min(self._poll_s * _POLL_FACTOR, slowest)
        if changed:
            self._publisher.soon()
        self._poll_soon()

    def _publish(self) -> None:
        if self._publisher.is_early(self._connecting):
            return
        ready = []
        for key, subchannel in self._subchannels.items():
            if subchannel.unasked or subchannel.misplaced:
                continue  # it is looked after
            if subchannel.connected():
                ready.append(subchannel)
            elif key not in self._unready:  # gone since it was last looked at
                self._unready[key] = subchannel
                self._poll_s = _POLL_FIRST_S
                self._poll_soon()
        self.picker = self._balancer.picker(ready)
        self.state = self._aggregate(bool(ready))
        if ready and self.picker is None:  # the policy wants none of them: there is nothing to wait for
            self.state = grpc.ChannelConnectivity.TRANSIENT_FAILURE
        self._ticker.wait()
        self._on_change()

    def _aggregate(self, ready: bool) -> grpc.ChannelConnectivity:
        """gRPC's rule for ``round_robin``: the best that any subchannel has."""
        if ready:
            return grpc.ChannelConnectivity.READY
        if self._connecting() or any(
            s.state is not grpc.ChannelConnectivity.TRANSIENT_FAILURE
            for s in self._subchannels.values()
        ):
            return grpc.ChannelConnectivity.CONNECTING
        return grpc.ChannelConnectivity.TRANSIENT_FAILURE

    def _connecting(self) -> bool:
        """Whether an endpoint has not yet shown if it can be reached."""
        if self._backlog or self._rivals.undecided(self._loop.time()):
            return True
        return any(s.state in _UNDECIDED for s in self._unready.values())
