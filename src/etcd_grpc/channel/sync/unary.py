"""The synchronous method with one request and one response: fast where it can be, else persistent."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import grpc

from etcd_grpc.balancer.service_config import HedgingPolicy
from etcd_grpc.channel.hedging import Hedging
from etcd_grpc.channel.next_attempt import delay_after, left_until
from etcd_grpc.channel.retry import numbered
from etcd_grpc.channel.subchannel import SURE_S
from etcd_grpc.channel.sync.calls import PendingCall, Start, pause, wait_for_endpoint
from etcd_grpc.channel.sync.hedged import HedgedCall
from etcd_grpc.channel.sync.methods import MultiCallable
from etcd_grpc.channel.sync.outcome import SyncSubchannel

__all__ = ["UnaryUnaryMultiCallable"]

T = TypeVar("T")
Metadata = Any  # whatever a plain channel takes


class _Unary(NamedTuple):
    """What is sent, and sent again: no closure, for which every call would have to make cells."""

    request: Any
    credentials: grpc.CallCredentials | None
    compression: grpc.Compression | None

    def attempt(self, inner: Any, left: float | None, metadata: Metadata) -> Any:
        """Send it by a real channel's multi-callable."""
        return inner(self.request, left, metadata, self.credentials, None, self.compression)


class UnaryUnaryMultiCallable(MultiCallable, grpc.UnaryUnaryMultiCallable):  # type: ignore[type-arg]
    """One request, one response; may be sent again to another endpoint."""

    __slots__ = ()

    def __call__(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Metadata = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        # What ``dispatcher.pick`` and ``_persist`` do, in place and without what only others need:
        # beside a call of 500 microseconds, a frame of the interpreter costs two.
        dispatcher = self._dispatcher
        started = time.monotonic()
        if (turn := dispatcher.turn) is None:
            subchannel = dispatcher.pick((), metadata)
        elif started > (subchannel := turn()).sure_until:
            subchannel = dispatcher.sound(subchannel)
        failure = None
        if subchannel is not None and self._config.plain:
            in_flight = subchannel.in_flight
            in_flight.append(None)
            subchannel.stats.picks += 1
            try:
                inner = self._inner.get(subchannel) or self._bind(subchannel)
                # By its name: an object that is called has its arguments packed and unpacked first.
                response = inner.__call__(request, timeout, metadata, credentials, None, compression)
            except (grpc.RpcError, ValueError) as error:
                failure = error
            else:
                subchannel.sure_until = started + SURE_S
                if dispatcher.throttle is not None:
                    dispatcher.throttle.succeeded()
                if dispatcher.observes:
                    dispatcher.succeeded(subchannel, started)
                return response
            finally:
                in_flight.pop()
            self._observe(subchannel, failure, started)
            if timeout is not None:
                timeout -= time.monotonic() - started
        elif (policy := self._config.hedging) is not None:
            message = _Unary(request, credentials, compression)
            call = self._hedged(policy, message, timeout, metadata, wait_for_ready, subchannel)
            return call.finish().result()
        return self._persist(
            _Unary(request, credentials, compression).attempt,
            timeout,
            wait_for_ready,
            metadata,
            subchannel,
            failure,
        )

    def with_call(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Metadata = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> tuple[Any, grpc.Call]:
        if (policy := self._config.hedging) is not None:
            message = _Unary(request, credentials, compression)
            call = self._hedged(policy, message, timeout, metadata, wait_for_ready).finish()
            call.deadline = None  # as a plain channel's, it has none any more
            return call.result(), call
        result: tuple[Any, grpc.Call] = self._persist(
            lambda inner, *how: inner.with_call(request, *how, credentials, None, compression),
            timeout,
            wait_for_ready,
            metadata,
        )
        return result

    def future(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Metadata = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        message = _Unary(request, credentials, compression)
        if (policy := self._config.hedging) is not None:
            return self._hedged(policy, message, timeout, metadata, wait_for_ready).drive()
        subchannel = self._ready(metadata)
        deadline, waits = self._defaults(timeout, wait_for_ready)
        return PendingCall(
            self._dispatcher,
            self._futures(message, metadata, later=subchannel is None),
            deadline=deadline,
            wait_for_ready=waits,
            attempts=self._dispatcher.attempts(self._config.retry),
            metadata=metadata,
        ).begin(subchannel)

    def _futures(self, message: _Unary, metadata: Metadata, *, later: bool) -> Start:
        """What starts an attempt that does not block.

        Args:
            message: What is sent.
            metadata: The call's.
            later: Not yet, so the message is serialized now.

        Raises:
            NoEndpointError: It cannot be.
        """
        bind = self._bind
        if later:
            bind = self._bind_raw
            message = message._replace(request=self._serialized(message.request))

        def start(picked: SyncSubchannel, left: float | None, previous: int) -> Any:
            return message.attempt(bind(picked).future, left, numbered(metadata, previous))

        return start

    def _hedged(
        self,
        policy: HedgingPolicy,
        message: _Unary,
        timeout: float | None,
        metadata: Metadata,
        wait_for_ready: bool | None,
        subchannel: SyncSubchannel | None = None,
    ) -> HedgedCall:
        """A call of which several attempts may be under way; the first has begun."""
        subchannel = subchannel or self._ready(metadata)
        deadline, waits = self._defaults(timeout, wait_for_ready)
        return HedgedCall(
            self._dispatcher,
            self._futures(message, metadata, later=subchannel is None),
            Hedging(policy, self._dispatcher.throttle, deadline),
            deadline=deadline,
            wait_for_ready=waits,
            metadata=metadata,
        ).begin(subchannel)

    def _persist(
        self,
        attempt: Callable[[Any, float | None, Metadata], T],
        timeout: float | None,
        wait_for_ready: bool | None,
        metadata: Metadata,
        subchannel: SyncSubchannel | None = None,
        failure: grpc.RpcError | ValueError | None = None,
    ) -> T:
        """Attempt until there is an answer, a final failure or no endpoint; blocks meanwhile.

        Args:
            attempt: Makes one; gets the inner multi-callable, what is left of the timeout, headers.
            timeout, wait_for_ready, metadata: As the caller of the RPC said.
            subchannel: The one that was picked for the first attempt, if there is one.
            failure: Of that attempt, if it was made.

        Raises:
            grpc.RpcError: The final failure.
            ValueError: The channel is closed.
        """
        deadline, waits = self._defaults(timeout, wait_for_ready)
        attempts = self._dispatcher.attempts(self._config.retry)
        tried: set[SyncSubchannel] = set()
        while True:
            if subchannel is not None and failure is not None:
                delay = delay_after(failure, attempts, subchannel, deadline)
                if delay is None:
                    raise failure
                tried.add(subchannel)
                pause(self._dispatcher, delay)
                subchannel = None
            subchannel = subchannel or self._dispatcher.pick(tried, metadata)
            if subchannel is None:
                if failure is None:
                    self._ready(metadata)
                subchannel = wait_for_endpoint(self._dispatcher, deadline, waits, metadata)
            started = subchannel.began()
            try:
                headers = numbered(metadata, attempts.previous)
                response = attempt(self._bind(subchannel), left_until(deadline), headers)
            except (grpc.RpcError, ValueError) as error:
                failure = error
                self._observe(subchannel, failure, started)
            else:
                self._observe(subchannel, None, started)
                if self._dispatcher.throttle is not None:
                    self._dispatcher.throttle.succeeded()
                return response
            finally:
                subchannel.in_flight.pop()
