"""The methods of a synchronous balanced channel, in the four shapes of gRPC."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import grpc

from etcd_grpc.channel.bound import BoundMethod
from etcd_grpc.channel.dispatch import delay_after, left_until
from etcd_grpc.channel.failure import NoEndpointError
from etcd_grpc.channel.retry import numbered
from etcd_grpc.channel.sync_calls import PendingCall, SyncSubchannel, track, wait_for_endpoint
from etcd_grpc.channel.sync_reports import reporting
from etcd_grpc.channel.sync_streams import ResponseStream

__all__ = [
    "StreamStreamMultiCallable",
    "StreamUnaryMultiCallable",
    "UnaryStreamMultiCallable",
    "UnaryUnaryMultiCallable",
]

_log = logging.getLogger("etcd_grpc.channel")

T = TypeVar("T")
Metadata = Any  # whatever a plain channel takes


class _MultiCallable(BoundMethod[grpc.Channel]):
    """How a synchronous call finds its endpoint."""

    __slots__ = ()
    _reporting = staticmethod(reporting)

    def _ready(self, metadata: Metadata) -> SyncSubchannel | None:
        """A connected endpoint if there is one; else the search is on.

        Raises:
            ValueError: The channel is closed.
        """
        subchannel = self._dispatcher.pick((), metadata)
        if subchannel is None:
            if self._dispatcher.closed:
                raise ValueError("Cannot invoke RPC on closed channel!")
            self._dispatcher.start()
        return subchannel

    def _serialized(self, request: Any) -> bytes:
        """The request of a call that cannot begin yet: a bad one is told to the caller at once.

        Raises:
            NoEndpointError: It cannot be serialized.
        """
        serializer = self._arguments[1]
        try:
            raw: bytes = request if serializer is None else serializer(request)
        except Exception as error:  # whatever the application's code raises
            _log.exception("cannot serialize a request of %s", self._arguments[0])
            code = grpc.StatusCode.INTERNAL
            raise NoEndpointError(code, "Exception serializing request!") from error
        return raw

    def _observe(
        self,
        subchannel: SyncSubchannel,
        failure: grpc.RpcError | ValueError | None,
        started: float,
    ) -> None:
        """Tell the policy how an attempt ended, if it wants to know."""
        if not self._dispatcher.observes or isinstance(failure, ValueError):
            return  # the second: the channel was closed under the call, which never left
        code = grpc.StatusCode.OK if failure is None else failure.code()
        self._dispatcher.observe(subchannel, code, started)

    def _stream(
        self,
        start: Callable[[SyncSubchannel, float | None], Any],
        timeout: float | None,
        waits: bool | None,
        metadata: Metadata,
    ) -> Any:
        """Start a call that is sent once: on a connected endpoint at once, else when there is one.

        Its requests are a stream, of which part may have been consumed.
        """
        subchannel = self._ready(metadata)
        deadline, wait_for_ready = self._defaults(timeout, waits)
        if subchannel is not None:
            try:
                call = start(subchannel, left_until(deadline))
            except ValueError:
                if not subchannel.closed:
                    raise
            else:
                track(self._dispatcher, subchannel, call)
                call.add_callback(functools.partial(_keep, self))
                return call
        return PendingCall(
            self._dispatcher,
            lambda picked, left, _previous: start(picked, left),
            deadline=deadline,
            wait_for_ready=wait_for_ready,
            attempts=None,
            metadata=metadata,
        ).begin()


class _Unary(NamedTuple):
    """What is sent, and sent again: no closure, for which every call would have to make cells."""

    request: Any
    credentials: grpc.CallCredentials | None
    compression: grpc.Compression | None

    def attempt(self, inner: Any, left: float | None, metadata: Metadata) -> Any:
        """Send it by a real channel's multi-callable."""
        return inner(self.request, left, metadata, self.credentials, None, self.compression)


def _keep(_method: object) -> None:
    """A callback that holds the method, and by it the channel, for as long as the call lives."""


class UnaryUnaryMultiCallable(_MultiCallable, grpc.UnaryUnaryMultiCallable):  # type: ignore[type-arg]
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
        dispatcher = self._dispatcher
        subchannel = dispatcher.pick((), metadata)
        failure = None
        if subchannel is not None and self._config.timeout_s is None:
            # The same as _persist's first attempt, without its bookkeeping.
            in_flight = subchannel.in_flight
            started = subchannel.began()
            try:
                inner = self._inner.get(subchannel) or self._bind(subchannel)
                # By its name: an object that is called has its arguments packed and unpacked first.
                response = inner.__call__(request, timeout, metadata, credentials, None, compression)
            except (grpc.RpcError, ValueError) as error:
                failure = error
            else:
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
        def start(picked: SyncSubchannel, left: float | None, previous: int) -> Any:
            headers = numbered(metadata, previous)
            inner = self._bind(picked) if raw is None else self._bind_raw(picked)
            message = request if raw is None else raw
            return inner.future(message, left, headers, credentials, None, compression)

        subchannel = self._ready(metadata)
        raw = self._serialized(request) if subchannel is None else None
        deadline, waits = self._defaults(timeout, wait_for_ready)
        attempts = self._dispatcher.attempts(self._config.retry)
        return PendingCall(
            self._dispatcher,
            start,
            deadline=deadline,
            wait_for_ready=waits,
            attempts=attempts,
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
                time.sleep(delay)
                subchannel = None
            subchannel = subchannel or self._dispatcher.pick(tried, metadata)
            if subchannel is None:
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


class UnaryStreamMultiCallable(_MultiCallable, grpc.UnaryStreamMultiCallable):  # type: ignore[type-arg]
    """One request, many responses; may be sent again before the first of them."""

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
        def start(picked: SyncSubchannel, left: float | None, previous: int) -> Any:
            headers = numbered(metadata, previous)
            inner = self._bind(picked) if raw is None else self._bind_raw(picked)
            message = request if raw is None else raw
            return inner(message, left, headers, credentials, None, compression)

        retry = self._config.retry
        subchannel = self._ready(metadata)
        raw = self._serialized(request) if subchannel is None else None
        deadline, waits = self._defaults(timeout, wait_for_ready)
        return ResponseStream(
            self._dispatcher,
            start,
            deadline=deadline,
            wait_for_ready=waits,
            attempts=self._dispatcher.attempts(retry),
            metadata=metadata,
        ).begin(subchannel)


class StreamUnaryMultiCallable(_MultiCallable, grpc.StreamUnaryMultiCallable):  # type: ignore[type-arg]
    """Many requests, one response."""

    __slots__ = ()

    def __call__(
        self,
        request_iterator: Iterator[Any],
        timeout: float | None = None,
        metadata: Metadata = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        response, _ = self.with_call(
            request_iterator, timeout, metadata, credentials, wait_for_ready, compression
        )
        return response

    def with_call(
        self,
        request_iterator: Iterator[Any],
        timeout: float | None = None,
        metadata: Metadata = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> tuple[Any, grpc.Call]:
        deadline, waits = self._defaults(timeout, wait_for_ready)
        subchannel = self._ready(metadata) or wait_for_endpoint(
            self._dispatcher, deadline, waits, metadata
        )
        started = subchannel.began()
        try:
            result: tuple[Any, grpc.Call] = self._bind(subchannel).with_call(
                request_iterator, left_until(deadline), metadata, credentials, None, compression
            )
        except grpc.RpcError as error:
            self._observe(subchannel, error, started)
            raise
        finally:
            subchannel.in_flight.pop()
        self._observe(subchannel, None, started)
        return result

    def future(
        self,
        request_iterator: Iterator[Any],
        timeout: float | None = None,
        metadata: Metadata = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        return self._stream(
            lambda subchannel, left: self._bind(subchannel).future(
                request_iterator, left, metadata, credentials, None, compression
            ),
            timeout,
            wait_for_ready,
            metadata,
        )


class StreamStreamMultiCallable(_MultiCallable, grpc.StreamStreamMultiCallable):  # type: ignore[type-arg]
    """Many requests, many responses."""

    __slots__ = ()

    def __call__(
        self,
        request_iterator: Iterator[Any],
        timeout: float | None = None,
        metadata: Metadata = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        return self._stream(
            lambda subchannel, left: self._bind(subchannel)(
                request_iterator, left, metadata, credentials, None, compression
            ),
            timeout,
            wait_for_ready,
            metadata,
        )
