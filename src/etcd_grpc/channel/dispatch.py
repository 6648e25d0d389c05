"""From a call to a subchannel: pick one that is connected, or wait for it, or say why there is none.

One ``Dispatcher`` stands behind each balanced channel, of either world.  It starts nothing before it
is first needed, so a channel made at import costs no thread and survives a fork.

The fast path is ``pick``: one attribute read, one step of the picker, one question to the connection.
Calls with one request and one response take these steps in place, by ``turn`` and ``sound``, and leave
out the last where an answer has just come from there.
Whoever gets nothing there becomes a ``Waiter`` and is served on the dispatcher's loop, by gRPC's rule:
a call that does not wait for ready fails once the set is in TRANSIENT_FAILURE, and not earlier.
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
import weakref
from collections.abc import Callable, Collection
from typing import Any, Generic, Protocol, TypeVar

import grpc

from etcd_grpc import plane
from etcd_grpc.balancer.base import Call, Picker, Turning
from etcd_grpc.balancer.explain import Explanation
from etcd_grpc.balancer.hash_key import Keyed
from etcd_grpc.balancer.service_config import RetryPolicy, ServiceConfig
from etcd_grpc.balancer.ticket import verdict
from etcd_grpc.channel.connectivity import READY
from etcd_grpc.channel.following import Following
from etcd_grpc.channel.retry import Attempts, Throttle
from etcd_grpc.channel.security import Security
from etcd_grpc.channel.spec import ChannelSpec, Effective
from etcd_grpc.channel.subchannel import Connector, Subchannel
from etcd_grpc.channel.waiter import Waiter, hand
from etcd_grpc.model import Snapshot
from etcd_grpc.posting import post

__all__ = ["RESOLVE_TIMEOUT_S", "Dispatcher"]

C = TypeVar("C", bound=grpc.Channel | grpc.aio.Channel)

# A call without a deadline of its own waits no longer than this for etcd's first answer.
RESOLVE_TIMEOUT_S = 20.0

_CLOSED = "Channel closed!"  # as a plain channel says


class Configured(Protocol):
    """A method, which is told the service config that applies."""

    def configure(self, config: ServiceConfig) -> None:
        """It is now this one."""


class Dispatcher(Generic[C]):
    """Picks subchannels for the calls of one channel.

    Args:
        spec: What was asked for.
        security: Of the connections.
        connector: Makes the real channels.
        on_state: Called on the dispatcher's loop when the aggregate state has changed.
    """

    def __init__(
        self,
        spec: ChannelSpec,
        security: Security,
        connector: Connector[C],
        on_state: Callable[[grpc.ChannelConnectivity], None],
    ) -> None:
        self.spec = spec
        self.rng = random.Random()  # noqa: S311 - jitter and spreading, no secret
        self.state = grpc.ChannelConnectivity.IDLE
        self.closed = False
        self._methods_lock = threading.Lock()  # guards _methods, and the step to another config
        self._methods: weakref.WeakSet[Configured] = weakref.WeakSet()
        self.throttle: Throttle | None = None
        self._use(spec.effective())
        self._security = security
        self._connector = connector
        self._on_state = on_state
        self._picker: Picker[Subchannel[C]] | None = None
        # Whose turn it is next, connected or not; None: that depends on the call, or there is nobody.
        self.turn: Callable[[], Subchannel[C]] | None = None
        self._waiting: list[Waiter[C]] = []
        self._delayed: dict[asyncio.TimerHandle, Callable[[], None]] = {}
        self._running: Following[C] | None = None
        self._lock = threading.Lock()  # guards the step from not started to started to closed
        _dispatchers.add(self)

    def _use(self, effective: Effective) -> None:
        """This is what applies from now on."""
        before = self.throttle.config if self.throttle is not None else None
        throttling = effective.service_config.throttling
        if throttling != before:
            self.throttle = Throttle(throttling) if throttling is not None else None
        self.effective = effective
        self.observes = effective.policy.wants_outcomes
        self.wants_reports = effective.policy.wants_reports
        with self._methods_lock:
            methods = list(self._methods)
            for method in methods:
                method.configure(effective.service_config)

    # From any thread.

    def adopt(self, method: Configured) -> None:
        """Tell ``method`` the service config, now and whenever it changes."""
        with self._methods_lock:
            self._methods.add(method)
            method.configure(self.effective.service_config)

    @property
    def started(self) -> bool:
        """Whether there is something to close: nothing once the interpreter's exit has done it."""
        running = self._running
        return running is not None and not self.closed and not running.plane.session.closed

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """Where it lives; None before it was started."""
        running = self._running
        return None if running is None else running.loop

    def pick(self, avoid: Collection[Subchannel[C]] = (), metadata: Any = None) -> Subchannel[C] | None:
        """A connected subchannel, if possible none of ``avoid``; None: become a waiter.

        Args:
            avoid: What has been tried for this call.
            metadata: The call's, for policies that look at it.
        """
        turn = self.turn
        return self._pick_for(avoid, metadata) if turn is None else self.sound(turn(), avoid)

    def sound(
        self, subchannel: Subchannel[C], avoid: Collection[Subchannel[C]] = ()
    ) -> Subchannel[C] | None:
        """``subchannel``, whose turn it is, if it will do; else as ``pick``."""
        try:  # as ``connected`` does, in place: this is the way of every call
            if subchannel.probe(False) == READY and subchannel not in avoid:
                return subchannel
        except ValueError:  # closed meanwhile
            pass
        return self._pick_again(subchannel, avoid)

    def attempts(self, retry: RetryPolicy | None) -> Attempts:
        """The bookkeeping for a call that has failed once."""
        return Attempts(retry, self.throttle, self.rng)

    def start(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Begin to follow the service, once.

        Args:
            loop: Where this dispatcher lives; None is the session's own loop.

        Raises:
            ConfigurationError: A certificate file cannot be read.
        """
        with self._lock:
            if self._running is not None or self.closed:
                return
            self._security.open(self._renew_soon)
            try:
                control = plane.acquire(self.spec.etcd)
            except BaseException:
                self._security.close()
                raise
            running = self._running = Following(
                self.spec,
                control,
                loop or control.session.loop,
                self._security,
                self._connector,
                self.effective,
                self.rng,
                use=self._use,
                changed=self._set_changed,
            )
            self.state = grpc.ChannelConnectivity.CONNECTING
        running.begin()

    def enqueue(self, waiter: Waiter[C]) -> None:
        """Serve ``waiter`` as soon as it can be said what becomes of it."""
        if not self._post(self._arrived, waiter):
            waiter.fail(grpc.StatusCode.CANCELLED, _CLOSED)

    def later(self, delay_s: float, callback: Callable[[], None]) -> bool:
        """Call back on the dispatcher's loop after ``delay_s`` seconds, or when the channel is closed.

        Returns:
            False if it is closed; then there is no call back.
        """
        return self._post(self._delay, delay_s, callback)

    def on_control_thread(self) -> bool:
        """Whether the caller is the thread that keeps leases and watches."""
        running = self._running
        return running is not None and threading.current_thread() is running.plane.session.thread

    def _post(self, callback: Callable[..., object], *arguments: Any) -> bool:
        """Run ``callback`` on the dispatcher's loop; False: it is closed."""
        running = self._running
        return running is not None and not self.closed and post(running.loop, callback, *arguments)

    def snapshot(self) -> Snapshot | None:
        """The endpoints as etcd has them; None before the channel was first used."""
        running = self._running
        return None if running is None else running.snapshot()

    def explain(self) -> Explanation | None:
        """What the policy goes by, for each endpoint; None before the channel was first used."""
        running = self._running
        return None if running is None else running.explain()

    def forget_parent(self) -> None:
        """In a forked child: begin anew with the next call.  The parent's threads are not here."""
        self._lock = threading.Lock()
        self._methods_lock = threading.Lock()
        self._running = None
        self._publish(None)
        self._waiting = []
        self._delayed = {}
        if not self.closed:
            self.state = grpc.ChannelConnectivity.IDLE

    def shut(self) -> Following[C] | None:
        """Take no more calls; return what has to be closed on its loop, if anything was started."""
        with self._lock:
            running = None if self.closed else self._running
            self.closed = True
            self.state = grpc.ChannelConnectivity.SHUTDOWN
        self._publish(None)
        # The interpreter's exit ends sessions before it drops channels.
        return None if running is None or running.plane.session.closed else running

    def finish(self, running: Following[C]) -> None:
        """Close everything; on the dispatcher's loop."""
        self.state = grpc.ChannelConnectivity.SHUTDOWN
        running.close()
        self._security.close()
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.fail(grpc.StatusCode.CANCELLED, _CLOSED)
        delayed, self._delayed = self._delayed, {}
        for timer, callback in delayed.items():
            timer.cancel()
            callback()
        self._on_state(self.state)

    def _pick_again(
        self, subchannel: Subchannel[C], avoid: Collection[Subchannel[C]]
    ) -> Subchannel[C] | None:
        """The first choice will not do: ask as often as there are others, and report what is broken."""
        picker, second_best = self._picker, None
        for _ in range(0 if picker is None else len(picker)):
            if not subchannel.connected():
                self._report(subchannel)
            elif subchannel in avoid:
                second_best = subchannel
            else:
                return subchannel
            subchannel = picker.pick()  # type: ignore[union-attr]
        return second_best

    def _pick_for(self, avoid: Collection[Subchannel[C]], metadata: Any) -> Subchannel[C] | None:
        """As ``pick``, by what is known of the call."""
        picker = self._picker
        if picker is None:
            return None
        skip, headers = list(avoid), tuple(metadata or ())
        key = metadata.hash_key if isinstance(metadata, Keyed) else None
        second_best = None
        for _ in range(len(picker)):
            subchannel = picker.pick(Call(key, headers, skip))
            if not subchannel.connected():
                self._report(subchannel)
            elif subchannel in avoid:
                second_best = subchannel
            else:
                return subchannel
            skip.append(subchannel)
        return second_best

    def _publish(self, picker: Picker[Subchannel[C]] | None) -> None:
        self._picker = picker
        if picker is None or self.effective.policy.wants_call:
            self.turn = None
        else:
            self.turn = picker.turn if isinstance(picker, Turning) else picker.pick

    def _report(self, subchannel: Subchannel[C]) -> None:
        running = self._running
        if running is not None:
            running.subchannels.report(subchannel)

    def observe(self, subchannel: Subchannel[C], code: grpc.StatusCode, began: float) -> None:
        """A call that began at ``began`` (time.monotonic) has ended.  Any thread."""
        now = time.monotonic()
        if subchannel.stats.observe(verdict(code), now - began, now):
            self._tick_soon()

    def succeeded(self, subchannel: Subchannel[C], began: float) -> None:
        """As ``observe`` with OK, in fewer steps: most calls end so."""
        now = time.monotonic()
        if subchannel.stats.observe(True, now - began, now):
            self._tick_soon()

    def _tick_soon(self) -> None:
        running = self._running
        if running is not None:
            running.subchannels.tick_soon()

    def _renew_soon(self) -> None:
        """On the thread that looks at files: our certificates have been replaced."""
        running = self._running
        if running is not None:
            self._post(running.renew)

    # On the dispatcher's loop.

    def _set_changed(self) -> None:
        running = self._running
        if running is None or self.closed:
            return
        self._publish(running.subchannels.picker)
        running.note_panic()
        running.ask_why()
        if self.state is not running.subchannels.state:
            self.state = running.subchannels.state
            self._on_state(self.state)
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            self._serve(waiter)

    def _delay(self, delay_s: float, callback: Callable[[], None]) -> None:
        running = self._running
        if running is None or self.closed:
            callback()
            return

        def due() -> None:
            del self._delayed[timer]
            callback()

        timer = running.loop.call_later(delay_s, due)
        self._delayed[timer] = callback

    def _arrived(self, waiter: Waiter[C]) -> None:
        self._serve(waiter)
        running = self._running
        if running is None or waiter not in self._waiting:
            return
        left = None if waiter.wait_for_ready else RESOLVE_TIMEOUT_S
        if waiter.deadline is not None:
            left = max(0.0, waiter.deadline - time.monotonic())
        if left is not None:
            # Weakly: a call that was served and then dropped is not to live until its deadline.
            running.loop.call_later(left, self._expired, weakref.ref(waiter))

    def _serve(self, waiter: Waiter[C]) -> None:
        running = self._running
        if running is None or self.closed:
            waiter.fail(grpc.StatusCode.CANCELLED, _CLOSED)
            return
        subchannel = self.pick((), waiter.metadata)
        failing = self.state is grpc.ChannelConnectivity.TRANSIENT_FAILURE
        if subchannel is not None:
            hand(subchannel, waiter)
        elif running.resolved and failing and not waiter.wait_for_ready and not running.asks_why:
            waiter.fail(grpc.StatusCode.UNAVAILABLE, running.why_none())
        else:
            self._waiting.append(waiter)

    def _expired(self, reference: weakref.ref[Waiter[C]]) -> None:
        waiter, running = reference(), self._running
        if running is None or waiter is None or waiter not in self._waiting:
            return
        self._waiting.remove(waiter)
        if waiter.deadline is not None and (waiter.wait_for_ready or not running.blames_etcd):
            why = f"Deadline Exceeded: {running.why_none()}"
            waiter.fail(grpc.StatusCode.DEADLINE_EXCEEDED, why)
        else:
            waiter.fail(grpc.StatusCode.UNAVAILABLE, running.why_none())


_dispatchers: weakref.WeakSet[Dispatcher[Any]] = weakref.WeakSet()


def _forget_parent() -> None:
    for dispatcher in list(_dispatchers):
        dispatcher.forget_parent()


os.register_at_fork(after_in_child=_forget_parent)
