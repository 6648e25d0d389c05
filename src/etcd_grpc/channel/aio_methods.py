"""The methods of an asyncio balanced channel, in the four shapes of gRPC."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import grpc

from etcd_grpc.channel.aio_calls import (
    AioSubchannel,
    StreamStreamCall,
    StreamUnaryCall,
    UnaryStreamCall,
    UnaryUnaryCall,
)
from etcd_grpc.channel.bound import BoundMethod
from etcd_grpc.channel.dispatch import left_until

__all__ = [
    "StreamStreamMultiCallable",
    "StreamUnaryMultiCallable",
    "UnaryStreamMultiCallable",
    "UnaryUnaryMultiCallable",
]

Metadata = Any  # whatever a plain channel takes


class _MultiCallable(BoundMethod[grpc.aio.Channel]):
    """How an asyncio call finds its endpoint."""

    __slots__ = ("_telling",)

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._telling: set[asyncio.Task[None]] = set()  # the loop holds a task only weakly

    def _prepare(
        self, timeout: float | None, wait_for_ready: bool | None, metadata: Metadata
    ) -> tuple[AioSubchannel | None, float | None, bool]:
        """A connected endpoint if there is one; deadline (time.monotonic) and waiting.

        Raises:
            grpc.aio.UsageError: The channel is closed.
        """
        dispatcher = self._dispatcher
        subchannel = dispatcher.pick((), metadata)
        if subchannel is None:
            if dispatcher.closed:
                raise grpc.aio.UsageError("Channel is closed.")
            dispatcher.start(asyncio.get_running_loop())
        deadline, waits = self._defaults(timeout, wait_for_ready)
        return subchannel, deadline, waits

    def _begin(
        self,
        subchannel: AioSubchannel,
        request: Any,
        timeout: float | None,
        metadata: Metadata,
        credentials: grpc.CallCredentials | None,
        compression: grpc.Compression | None,
    ) -> Any:
        """Start one attempt, and count it until it has ended."""
        call = (self._inner.get(subchannel) or self._bind(subchannel))(
            request,
            timeout=timeout,
            metadata=metadata,
            credentials=credentials,
            compression=compression,
        )
        subchannel.stats.picks += 1
        subchannel.in_flight.append(None)
        call.add_done_callback(subchannel.ended)
        return call

    def _begin_stream(self, subchannel: AioSubchannel, *arguments: Any) -> Any:
        """As ``_begin``, and the policy is told how it ended."""
        call = self._begin(subchannel, *arguments)
        if self._dispatcher.observes:
            began = time.monotonic()

            async def tell() -> None:
                self._dispatcher.observe(subchannel, await call.code(), began)

            def ended(_call: object) -> None:
                task = asyncio.get_running_loop().create_task(tell())
                self._telling.add(task)
                task.add_done_callback(self._telling.discard)

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
    ) -> UnaryUnaryCall:
        subchannel, deadline, waits = self._prepare(timeout, wait_for_ready, metadata)

        def start(picked: AioSubchannel, left: float | None) -> Any:
            return self._begin(picked, request, left, metadata, credentials, compression)

        inner = None
        if subchannel is not None:
            left = timeout if self._config.timeout_s is None else left_until(deadline)
            inner = start(subchannel, left)
        return UnaryUnaryCall(
            self._dispatcher,
            start,
            deadline,
            waits,
            metadata,
            subchannel,
            inner,
            self._config.retry,
        )


class _StreamMultiCallable(_MultiCallable):
    """A call that is sent once: a plain call where an endpoint is connected."""

    def _call(
        self,
        waiting: Callable[..., Any],
        request: Any,
        timeout: float | None,
        metadata: Metadata,
        credentials: grpc.CallCredentials | None,
        wait_for_ready: bool | None,
        compression: grpc.Compression | None,
    ) -> Any:
        subchannel, deadline, waits = self._prepare(timeout, wait_for_ready, metadata)

        def start(picked: AioSubchannel, left: float | None) -> Any:
            return self._begin_stream(picked, request, left, metadata, credentials, compression)

        if subchannel is not None:
            return start(subchannel, left_until(deadline))
        return waiting(self._dispatcher, start, deadline, waits, metadata)


class UnaryStreamMultiCallable(_StreamMultiCallable, grpc.aio.UnaryStreamMultiCallable):  # type: ignore[type-arg]
    """One request, many responses."""

    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Metadata = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        return self._call(
            UnaryStreamCall, request, timeout, metadata, credentials, wait_for_ready, compression
        )


class StreamUnaryMultiCallable(_StreamMultiCallable, grpc.aio.StreamUnaryMultiCallable):  # type: ignore[type-arg]
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
            request_iterator,
            timeout,
            metadata,
            credentials,
            wait_for_ready,
            compression,
        )


class StreamStreamMultiCallable(_StreamMultiCallable, grpc.aio.StreamStreamMultiCallable):  # type: ignore[type-arg]
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
            request_iterator,
            timeout,
            metadata,
            credentials,
            wait_for_ready,
            compression,
        )
