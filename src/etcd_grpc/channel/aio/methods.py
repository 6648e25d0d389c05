"""The methods of an asyncio balanced channel, in the four shapes of gRPC."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import grpc

from etcd_grpc.balancer.service_config import HedgingPolicy
from etcd_grpc.channel.aio.calls import (
    AioSubchannel,
    Start,
    StreamStreamCall,
    StreamUnaryCall,
    at_once,
)
from etcd_grpc.channel.aio.hedged import HedgedCall
from etcd_grpc.channel.aio.repeated import UnaryStreamCall, UnaryUnaryCall
from etcd_grpc.channel.aio.replayed import ReplayedStreamStreamCall, ReplayedStreamUnaryCall
from etcd_grpc.channel.aio.reports import reporting
from etcd_grpc.channel.aio.requests import Requests
from etcd_grpc.channel.bound import BoundMethod
from etcd_grpc.channel.hedging import Hedging
from etcd_grpc.channel.next_attempt import left_until
from etcd_grpc.channel.retry import numbered

__all__ = [
    "StreamStreamMultiCallable",
    "StreamUnaryMultiCallable",
    "UnaryStreamMultiCallable",
    "UnaryUnaryMultiCallable",
]

Metadata = Any  # whatever a plain channel takes


class _NoMetadata(grpc.aio.Metadata):
    """Empty but true, so that gRPC does not make, and ask, an empty one for each call.  Both in C."""

    __bool__ = (1).__bool__
    __iter__ = ().__iter__


_NO_METADATA = _NoMetadata()


class _MultiCallable(BoundMethod[grpc.aio.Channel]):
    """How an asyncio call finds its endpoint."""

    __slots__ = ()
    _reporting = staticmethod(reporting)

    def _prepare(
        self, timeout: float | None, wait_for_ready: bool | None, metadata: Metadata
    ) -> tuple[AioSubchannel | None, float | None, bool]:
        """A connected endpoint if there is one; deadline (time.monotonic) and waiting.

        Raises:
            grpc.aio.UsageError: The channel is closed.
        """
        subchannel = self._dispatcher.pick((), metadata)
        if subchannel is None:
            self._search()
        deadline, waits = self._defaults(timeout, wait_for_ready)
        return subchannel, deadline, waits

    def _search(self) -> None:
        """There is no connected endpoint: begin to look for one.

        Raises:
            grpc.aio.UsageError: The channel is closed.
        """
        if self._dispatcher.closed:
            raise grpc.aio.UsageError("Channel is closed.")
        self._dispatcher.start(asyncio.get_running_loop())

    def send(
        self,
        subchannel: AioSubchannel,
        timeout: float | None,
        previous: int,
        request: Any,
        metadata: Metadata,
        credentials: grpc.CallCredentials | None,
        compression: grpc.Compression | None,
    ) -> Any:
        """Start one attempt, after ``previous`` others, and count it as in flight."""
        if previous:
            metadata = numbered(metadata, previous)
        inner = self._inner.get(subchannel) or self._bind(subchannel)
        # By its name: an object that is called has its arguments packed and unpacked first.
        call = inner.__call__(
            request,
            timeout=timeout,
            metadata=metadata,
            credentials=credentials,
            compression=compression,
        )
        subchannel.stats.picks += 1
        subchannel.in_flight.append(None)
        return call

    def _begin(self, subchannel: AioSubchannel, *arguments: Any) -> Any:
        """As ``send``, and count it out when it has ended."""
        call = self.send(subchannel, *arguments)
        call.add_done_callback(subchannel.ended)
        return call

    def _begin_observed(self, subchannel: AioSubchannel, *arguments: Any) -> Any:
        """As ``_begin``, and the policy is told how it ended."""
        call = self._begin(subchannel, *arguments)
        if self._dispatcher.observes:
            began = time.monotonic()

            def ended(_call: object) -> None:
                if (code := at_once(call.code())) is not None:
                    self._dispatcher.observe(subchannel, code, began)

            call.add_done_callback(ended)
        return call


class UnaryUnaryMultiCallable(_MultiCallable, grpc.aio.UnaryUnaryMultiCallable):  # type: ignore[type-arg]
    """One request, one response; may be sent again to another endpoint."""

    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Metadata = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> UnaryUnaryCall | HedgedCall:
        dispatcher, config = self._dispatcher, self._config
        if config.hedging is not None:
            arguments = (request, metadata, credentials, compression)
            return self._hedge(config.hedging, timeout, wait_for_ready, metadata, arguments)
        if config.timeout_s is not None:
            timeout = config.timeout_s if timeout is None else min(timeout, config.timeout_s)
        if metadata is None:
            metadata = _NO_METADATA
        began = time.monotonic()
        # What ``dispatcher.pick`` and ``send`` do, in place: beside a call of 500 microseconds, a frame
        # of the interpreter costs two.
        if (turn := dispatcher.turn) is None:
            subchannel = dispatcher.pick((), metadata)
        elif began > (subchannel := turn()).sure_until:
            subchannel = dispatcher.sound(subchannel)
        inner = None
        if subchannel is None:
            self._search()
        else:
            method = self._inner.get(subchannel) or self._bind(subchannel)
            inner = method.__call__(
                request,
                timeout=timeout,
                metadata=metadata,
                credentials=credentials,
                compression=compression,
            )
            subchannel.stats.picks += 1
            subchannel.in_flight.append(None)
        return UnaryUnaryCall(
            dispatcher,
            self,
            config,
            began,
            None if timeout is None else began + timeout,
            wait_for_ready,
            (request, metadata, credentials, compression),
            subchannel,
            inner,
        )

    def _hedge(
        self,
        policy: HedgingPolicy,
        timeout: float | None,
        wait_for_ready: bool | None,
        metadata: Metadata,
        arguments: tuple[Any, ...],
    ) -> HedgedCall:
        """A call of which several attempts may be under way."""
        dispatcher = self._dispatcher
        subchannel, deadline, waits = self._prepare(timeout, wait_for_ready, metadata)
        machine = Hedging(policy, dispatcher.throttle, deadline)

        def start(picked: AioSubchannel, left: float | None, previous: int) -> Any:
            return self._begin_observed(picked, left, previous, *arguments)

        return HedgedCall(dispatcher, start, machine, deadline, waits, metadata, subchannel)


class UnaryStreamMultiCallable(_MultiCallable, grpc.aio.UnaryStreamMultiCallable):  # type: ignore[type-arg]
    """One request, many responses; may be sent again before the first of them."""

    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Metadata = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> UnaryStreamCall:
        retry = self._config.retry
        subchannel, deadline, waits = self._prepare(timeout, wait_for_ready, metadata)

        def start(picked: AioSubchannel, left: float | None, previous: int) -> Any:
            return self._begin(picked, left, previous, request, metadata, credentials, compression)

        inner = None if subchannel is None else start(subchannel, left_until(deadline), 0)
        return UnaryStreamCall(
            self._dispatcher, start, deadline, waits, metadata, subchannel, inner, retry
        )


class _RequestStreamMultiCallable(_MultiCallable):
    """A call that is sent once (a plain one if an endpoint is connected), or as a retry policy says."""

    def _call(
        self,
        waiting: Callable[..., Any],
        replayed: Callable[..., Any],
        requests: Any,
        timeout: float | None,
        metadata: Metadata,
        credentials: grpc.CallCredentials | None,
        wait_for_ready: bool | None,
        compression: grpc.Compression | None,
    ) -> Any:
        retry = self._config.retry
        subchannel, deadline, waits = self._prepare(timeout, wait_for_ready, metadata)
        if retry is not None:
            kept = Requests(requests, self._dispatcher.spec.replay_limit)
            start = self._starting(kept, metadata, credentials, compression)
            inner = None if subchannel is None else start(subchannel, left_until(deadline), 0)
            return replayed(
                kept, self._dispatcher, start, deadline, waits, metadata, subchannel, inner, retry
            )

        def start_once(picked: AioSubchannel, left: float | None, _previous: int = 0) -> Any:
            return self._begin_observed(picked, left, 0, requests, metadata, credentials, compression)

        if subchannel is not None:
            return start_once(subchannel, left_until(deadline))
        return waiting(self._dispatcher, start_once, deadline, waits, metadata)

    def _starting(
        self,
        requests: Requests,
        metadata: Metadata,
        credentials: grpc.CallCredentials | None,
        compression: grpc.Compression | None,
    ) -> Start:
        """What starts an attempt that sends what was kept, and what follows."""

        def start(picked: AioSubchannel, left: float | None, previous: int) -> Any:
            attempt = requests.attempt()
            call = self._bind_replaying(picked)(
                attempt,
                timeout=left,
                metadata=numbered(metadata, previous),
                credentials=credentials,
                compression=compression,
            )
            picked.began()
            call.add_done_callback(attempt.end)
            call.add_done_callback(picked.ended)
            return call

        return start


class StreamUnaryMultiCallable(_RequestStreamMultiCallable, grpc.aio.StreamUnaryMultiCallable):  # type: ignore[type-arg]
    """Many requests (an iterator over them, or None to write them), one response."""

    def __call__(
        self,
        request_iterator: Any = None,
        timeout: float | None = None,
        metadata: Metadata = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        return self._call(
            StreamUnaryCall,
            ReplayedStreamUnaryCall,
            request_iterator,
            timeout,
            metadata,
            credentials,
            wait_for_ready,
            compression,
        )


class StreamStreamMultiCallable(_RequestStreamMultiCallable, grpc.aio.StreamStreamMultiCallable):  # type: ignore[type-arg]
    """Many requests (an iterator over them, or None to write them), many responses."""

    def __call__(
        self,
        request_iterator: Any = None,
        timeout: float | None = None,
        metadata: Metadata = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        return self._call(
            StreamStreamCall,
            ReplayedStreamStreamCall,
            request_iterator,
            timeout,
            metadata,
            credentials,
            wait_for_ready,
            compression,
        )
