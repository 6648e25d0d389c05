"""What a channel follows while it runs: the endpoints of its service, and the service config in etcd.

What etcd says arrives on the channel's own loop, by subscriptions of the session's resolvers, and goes
to the set of subchannels.  The service config is asked for before the endpoints, so the first calls
obey it, too; but they do not wait for it longer than a moment.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import grpc

from etcd_grpc.balancer.explain import Explanation, explain
from etcd_grpc.balancer.service_config import ServiceConfig
from etcd_grpc.balancer.stats_table import StatsTable
from etcd_grpc.channel.diagnosis import Diagnosis
from etcd_grpc.channel.last_errors import LastErrors
from etcd_grpc.channel.security import Security
from etcd_grpc.channel.spec import ChannelSpec, Effective
from etcd_grpc.channel.subchannel import Connector, Subchannel
from etcd_grpc.channel.subchannel_set import SubchannelSet
from etcd_grpc.channel.why_none import why_none
from etcd_grpc.model import Change, Snapshot
from etcd_grpc.plane import ControlPlane
from etcd_grpc.resolver import Resolver, Subscription
from etcd_grpc.shared_config import ConfigSubscription
from etcd_grpc.telemetry import emit, events

__all__ = ["Following"]

C = TypeVar("C", bound=grpc.Channel | grpc.aio.Channel)

# No call waits longer than this, after the first endpoints, for the answer whether a service config
# stands in etcd.
_CONFIG_WAIT_S = 0.25


class Following(Generic[C]):
    """The running part of one channel.

    Args:
        spec: What was asked for.
        control: The session with etcd and what lives on it.
        loop: The channel's own.
        security: Of the connections.
        connector: Makes the real channels.
        effective: What applies at first.
        rng: The source of chance.
        use: Called on the loop with what applies from now on.
        changed: Called on the loop after the picker, the state or what is known of it has changed.

    Attributes:
        plane, loop: As given.
        effective: What applies.
        subchannels: The set.
        resolved: Whether the endpoints are known, and followed by the set.
    """

    def __init__(
        self,
        spec: ChannelSpec,
        control: ControlPlane,
        loop: asyncio.AbstractEventLoop,
        security: Security,
        connector: Connector[C],
        effective: Effective,
        rng: random.Random,
        *,
        use: Callable[[Effective], None],
        changed: Callable[[], None],
    ) -> None:
        self.plane = control
        self.loop = loop
        self.effective = effective
        self.resolved = False
        self._service = spec.target.service
        self._spec = spec
        self._security = security
        self._rng = rng
        self._use = use
        self._closed = False
        self.subchannels: SubchannelSet[C] = SubchannelSet(
            loop,
            connector,
            effective.make_balancer(rng, time.monotonic),
            StatsTable(time.monotonic),
            changed,
            security.ways(),
            rng,
        )
        self._diagnosis = Diagnosis(self._service, security.look, loop, changed)
        self._last_errors = LastErrors(loop, connector, changed)
        self._panicking = False
        self._resolver: Resolver | None = None
        self._endpoints = Subscription(loop, self._endpoints_changed)
        self._config = ConfigSubscription(loop, self._config_found) if spec.shares_config else None
        self._configured = self._config is None  # its answer is there, or was waited for long enough
        self._held: list[Change] | None = None  # changes that wait for it

    # From any thread.

    def begin(self) -> None:
        """Begin to follow."""
        self.plane.session.loop.call_soon_threadsafe(self._subscribe)

    def snapshot(self) -> Snapshot | None:
        """The endpoints as etcd has them; None before it was asked."""
        return self._resolver.snapshot() if self._resolver else None

    @property
    def blames_etcd(self) -> bool:
        """Whether calls wait because etcd could not be asked, not because time was short."""
        resolver = self._resolver
        return resolver is not None and not resolver.resolved and bool(resolver.trouble)

    def why_none(self) -> str:
        """Why no endpoint can be picked, with the service's name and etcd's state."""
        resolver = self._resolver
        if resolver is None:
            return f"cannot find service {self._service}: etcd has not been asked yet"
        if not resolver.resolved:
            return f"cannot find service {self._service}: {resolver.status()}"
        why = why_none(
            self._service,
            list(self.subchannels.subchannels.copy().values()),
            self.subchannels.left_out,
            str(self.effective.policy),
            refused=self.subchannels.picker is None,
            diagnosis=self._diagnosis.why,
            last_error=self._last_errors.why(),
        )
        return f"{why}; {resolver.status()}"

    def explain(self) -> Explanation:
        """What the policy goes by, for each endpoint."""
        subchannels = list(self.subchannels.subchannels.copy().values())
        states = {s.endpoint.key: s.state.name for s in subchannels}
        whys = {s.endpoint.key: self._why_not(s) for s in subchannels}
        return explain(self.subchannels.balancer, subchannels, time.monotonic(), states, whys)

    def _why_not(self, subchannel: Subchannel[C]) -> str:
        """What is known of why it is not connected, or not with whom it should be."""
        known = self._diagnosis.why((subchannel.endpoint.address,))
        return subchannel.told_why() or (subchannel.failure and (known or subchannel.failure))

    # On the session's loop.

    def _subscribe(self) -> None:
        if self._closed:
            return
        if self._config is not None:
            self.plane.subscribe_config(self._service, self._config)
        self._resolver = self.plane.subscribe(self._service, self._endpoints)

    def _unsubscribe(self) -> None:
        self.plane.unsubscribe(self._service, self._endpoints)
        if self._config is not None:
            self.plane.unsubscribe_config(self._service, self._config)

    # On the channel's loop.

    def close(self) -> None:
        """Follow nothing more, and close every connection."""
        self._closed = True
        self._endpoints.close()
        if self._config is not None:
            self._config.close()
        self.subchannels.close()
        self._diagnosis.close()
        self._last_errors.close()
        self.plane.session.loop.call_soon_threadsafe(self._unsubscribe)

    @property
    def asks_why(self) -> bool:
        """Whether it is worth waiting to learn why nobody can be connected."""
        return self._diagnosis.pending or self._last_errors.pending

    def note_panic(self) -> None:
        """Tell when the policy begins, or ceases, to use all endpoints because too few are well."""
        panicking = self.subchannels.balancer.panicking
        if panicking is not self._panicking:
            self._panicking = panicking
            what = events.PanicStarted if panicking else events.PanicEnded
            emit(what(self._service))

    def ask_why(self) -> None:
        """Find out why those that fail cannot be connected."""
        if self._security.tls:
            self._diagnosis.notice(s.endpoint.address for s in self.subchannels.failing())
        self._last_errors.notice(s for s in self.subchannels.failing() if not s.misplaced)

    def renew(self) -> None:
        """Our certificates have been replaced."""
        if not self._closed:
            self.subchannels.renew()

    def _endpoints_changed(self, changes: Sequence[Change]) -> None:
        if self._closed:
            return
        if self._configured:
            self.resolved = True
            self.subchannels.update(changes)
            return
        if self._held is None:
            self._held = []
            self.loop.call_later(_CONFIG_WAIT_S, self._release_held)
        self._held += changes

    def _release_held(self) -> None:
        self._configured = True
        held, self._held = self._held, None
        if held is not None:
            self._endpoints_changed(held)

    def _config_found(self, found: ServiceConfig | None) -> None:
        """The service config in etcd is now ``found``, or there is none."""
        if self._closed:
            return
        before, after = self.effective, self._spec.effective(found)
        if after != before:
            self.effective = after
            self._use(after)
            if after.policy != before.policy:
                self.subchannels.follow_policy(after.make_balancer(self._rng, time.monotonic))
            health_service = after.service_config.health_service
            if health_service != self._security.health_service:
                self._security.health_service = health_service
                self.subchannels.renew(even_failing=True)
        self._release_held()
