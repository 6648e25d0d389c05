"""The streaming methods of a synchronous balanced channel, and what all its methods have in common."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from etcd_grpc.channel.bound import BoundMethod
from etcd_grpc.channel.failure import NoEndpointError
from etcd_grpc.channel.next_attempt import left_until
from etcd_grpc.channel.retry import numbered
from etcd_grpc.channel.sync.calls import PendingCall, track, wait_for_endpoint
from etcd_grpc.channel.sync.outcome import SyncSubchannel
from etcd_grpc.channel.sync.reports import reporting
from etcd_grpc.channel.sync.requests import Requests
from etcd_grpc.channel.sync.streams import ResponseStream

__all__ = [
    "MultiCallable",
    "StreamStreamMultiCallable",
    "StreamUnaryMultiCallable",
    "UnaryStreamMultiCallable",
]

_log = logging.getLogger("etcd_grpc.channel")

Metadata = Any  # whatever a plain channel takes


class MultiCallable(BoundMethod[grpc.Channel]):
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
        """Start a call that is sent once: on a connected endpoint at once, else when there is one."""
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

    def _replay(
        self,
        kind: type[PendingCall],
        begin: Callable[[Any, Iterator[Any], float | None, Metadata], Any],
        requests: Iterator[Any],
        timeout: float | None,
        waits: bool | None,
        metadata: Metadata,
    ) -> PendingCall:
        """Start a call whose requests are kept, so that it may be sent again.

        Args:
            kind: Of call.
            begin: Begins one attempt; gets the inner multi-callable, its requests, what is left of the
                timeout, headers.
            requests, timeout, waits, metadata: As the caller of the RPC said.
        """
        kept = Requests(requests, self._dispatcher.spec.replay_limit)

        def start(picked: SyncSubchannel, left: float | None, previous: int) -> Any:
            attempt = kept.attempt()
            inner = begin(
                self._bind_replaying(picked), iter(attempt), left, numbered(metadata, previous)
            )
            if not inner.add_callback(attempt.end):
                attempt.end()
            return inner

        subchannel = self._ready(metadata)
        deadline, wait_for_ready = self._defaults(timeout, waits)
        return kind(
            self._dispatcher,
            start,
            deadline=deadline,
            wait_for_ready=wait_for_ready,
            attempts=self._dispatcher.attempts(self._config.retry),
            metadata=metadata,
            requests=kept,
        ).begin(subchannel)


def _keep(_method: object) -> None:
    """A callback that holds the method, and by it the channel, for as long as the call lives."""


class UnaryStreamMultiCallable(MultiCallable, grpc.UnaryStreamMultiCallable):  # type: ignore[type-arg]
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


class StreamUnaryMultiCallable(MultiCallable, grpc.StreamUnaryMultiCallable):  # type: ignore[type-arg]
    """Many requests, one response; sent again only by a retry policy."""

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
        if self._config.retry is not None:
            call = self.future(
                request_iterator, timeout, metadata, credentials, wait_for_ready, compression
            )
            try:
                response = call.result()
            except BaseException:  # such as KeyboardInterrupt
                call.cancel()
                raise
            call.deadline = None  # as a plain channel's, it has none any more
            return response, call
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
        if self._config.retry is not None:
            return self._replay(
                PendingCall,
                lambda inner, requests, *how: inner.future(
                    requests, *how, credentials, None, compression
                ),
                request_iterator,
                timeout,
                wait_for_ready,
                metadata,
            )
        return self._stream(
            lambda subchannel, left: self._bind(subchannel).future(
                request_iterator, left, metadata, credentials, None, compression
            ),
            timeout,
            wait_for_ready,
            metadata,
        )


class StreamStreamMultiCallable(MultiCallable, grpc.StreamStreamMultiCallable):  # type: ignore[type-arg]
    """Many requests, many responses; sent again only by a retry policy."""

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
        if self._config.retry is not None:
            return self._replay(
                ResponseStream,
                lambda inner, requests, *how: inner(requests, *how, credentials, None, compression),
                request_iterator,
                timeout,
                wait_for_ready,
                metadata,
            )
        return self._stream(
            lambda subchannel, left: self._bind(subchannel)(
                request_iterator, left, metadata, credentials, None, compression
            ),
            timeout,
            wait_for_ready,
            metadata,
        )
