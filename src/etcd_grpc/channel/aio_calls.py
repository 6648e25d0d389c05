"""Asyncio calls that outlive the moment in which they are made.

An ``_AioCall`` answers as its current attempt does.  While there is none (no endpoint is connected yet,
or another attempt is due), ``_moving`` is the task that brings it; everything that needs an attempt
awaits that task first.  Retries are driven by whoever awaits the call.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Generator
from typing import Any

import grpc

from etcd_grpc.balancer.service_config import RetryPolicy
from etcd_grpc.channel.dispatch import Dispatcher, delay_after, left_until
from etcd_grpc.channel.retry import Attempts
from etcd_grpc.channel.subchannel import Subchannel

__all__ = ["AioSubchannel", "StreamStreamCall", "StreamUnaryCall", "UnaryStreamCall", "UnaryUnaryCall"]

AioSubchannel = Subchannel[grpc.aio.Channel]
AioDispatcher = Dispatcher[grpc.aio.Channel]
# Starts one attempt, given what is left of the deadline in seconds.
Start = Callable[[AioSubchannel, float | None], Any]

_CANCELLED = "Locally cancelled by application!"


class _Awaiting:
    """A waiter whose task sleeps."""

    def __init__(self, deadline: float | None, wait_for_ready: bool, metadata: Any) -> None:
        self.metadata = metadata
        self.deadline = deadline
        self.wait_for_ready = wait_for_ready
        self.served: asyncio.Future[AioSubchannel] = asyncio.get_running_loop().create_future()

    def go(self, subchannel: AioSubchannel) -> None:
        if not self.served.done():
            self.served.set_result(subchannel)

    def fail(self, code: grpc.StatusCode, why: str) -> None:
        if not self.served.done():
            self.served.set_exception(_rpc_error(code, why))


class _Failed:
    """Stands in for the attempt of a call that never got one."""

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        self._error = error

    async def code(self) -> grpc.StatusCode:
        return self._error.code()

    async def details(self) -> str:
        return self._error.details() or ""

    async def initial_metadata(self) -> Any:
        return self._error.initial_metadata()

    async def trailing_metadata(self) -> Any:
        return self._error.trailing_metadata()

    async def debug_error_string(self) -> str:
        return self._error.debug_error_string() or ""


class _AioCall:
    """What all shapes have in common.

    Args:
        dispatcher: Where endpoints come from.
        start: Starts an attempt.
        deadline: On time.monotonic's clock.
        wait_for_ready: As the caller of the RPC asked.
        metadata: Of the call, for policies that look at it.
        subchannel, inner: The first attempt and where it is made; None: wait for an endpoint.
        retry: When it may be sent again; None for never, short of a call that never left.
    """

    # What most calls never need is not made for each of them.
    _moving: asyncio.Task[None] | None = None
    _tried: tuple[AioSubchannel, ...] = ()
    _callbacks: tuple[asyncio.Task[None], ...] = ()
    _began = 0.0  # when the current attempt was, where the policy wants to know
    _seen: Any = None  # the attempt whose end the policy has been told of

    def __init__(
        self,
        dispatcher: AioDispatcher,
        start: Start,
        deadline: float | None,
        wait_for_ready: bool,
        metadata: Any = None,
        subchannel: AioSubchannel | None = None,
        inner: Any = None,
        retry: RetryPolicy | None = None,
    ) -> None:
        self._metadata = metadata
        if dispatcher.observes:
            self._began = time.monotonic()
        self._dispatcher = dispatcher
        self._start = start
        self._deadline = deadline
        self._wait_for_ready = wait_for_ready
        self._subchannel = subchannel
        self._inner = inner
        self._retry = retry
        if inner is None:
            self._move(0.0)

    def _move(self, delay_s: float) -> None:
        self._moving = asyncio.get_running_loop().create_task(self._next(delay_s))
        # The exception is for those who await the call; nobody has to.
        self._moving.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def _next(self, delay_s: float) -> None:
        """Bring the next attempt."""
        if delay_s:
            await asyncio.sleep(delay_s)
        subchannel = self._dispatcher.pick(self._tried, self._metadata)
        if subchannel is None:
            waiter = _Awaiting(self._deadline, self._wait_for_ready, self._metadata)
            self._dispatcher.enqueue(waiter)
            subchannel = await waiter.served
        self._subchannel = subchannel
        self._began = time.monotonic()
        self._inner = self._start(subchannel, left_until(self._deadline))
        self._moving = None

    async def _arrive(self) -> Any:
        """The current attempt, when there is one.

        Raises:
            grpc.aio.AioRpcError: There will be none.
            asyncio.CancelledError: The call was cancelled before.
        """
        while (moving := self._moving) is not None:
            try:
                await asyncio.wait({moving})
            except asyncio.CancelledError:
                self.cancel()
                raise
            moving.result()
        return self._inner

    async def _settled(self) -> Any:
        """The attempt that is the final one, or what stands in for it."""
        try:
            return await self._arrive()
        except grpc.aio.AioRpcError as error:
            return _Failed(error)
        except asyncio.CancelledError:
            if not self.cancelled():
                raise
            return _Failed(_rpc_error(grpc.StatusCode.CANCELLED, _CANCELLED))

    def cancel(self) -> bool:
        if self._moving is not None:
            return self._moving.cancel()
        return bool(self._inner.cancel())

    def cancelled(self) -> bool:
        if self._moving is not None:
            return self._moving.cancelled() or bool(self._moving.cancelling())
        return bool(self._inner.cancelled())

    def done(self) -> bool:
        return self._moving.done() if self._moving is not None else bool(self._inner.done())

    def time_remaining(self) -> float | None:
        return left_until(self._deadline)

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        async def follow() -> None:
            await (await self._settled()).code()
            callback(self)

        if self.done() and self._moving is None:
            callback(self)
            return
        # Held here, since the loop holds a task only weakly.
        self._callbacks += (asyncio.get_running_loop().create_task(follow()),)

    async def initial_metadata(self) -> Any:
        return await (await self._settled()).initial_metadata()

    async def trailing_metadata(self) -> Any:
        return await (await self._settled()).trailing_metadata()

    async def code(self) -> grpc.StatusCode:
        code: grpc.StatusCode = await (await self._settled()).code()
        return code

    async def details(self) -> str:
        details: str = await (await self._settled()).details()
        return details

    async def debug_error_string(self) -> str:
        """C-core's description of the final attempt."""
        text: str = await (await self._settled()).debug_error_string()
        return text

    async def wait_for_connection(self) -> None:
        await (await self._arrive()).wait_for_connection()


class UnaryUnaryCall(_AioCall, grpc.aio.UnaryUnaryCall):  # type: ignore[type-arg]
    """One request, one response; may be sent again to another endpoint."""

    _attempts: Attempts | None = None  # made when the first one has failed

    def __await__(self) -> Generator[Any, None, Any]:
        while True:
            if self._moving is not None:
                yield from self._arrive().__await__()
            inner = self._inner
            try:
                response = yield from inner.__await__()
            except grpc.aio.AioRpcError as error:
                self._observe(inner, error.code())
                if not self._again(inner, error):
                    raise
            else:
                if self._dispatcher.throttle is not None:
                    self._dispatcher.throttle.succeeded()
                if self._dispatcher.observes:
                    self._observe(inner, grpc.StatusCode.OK)
                return response

    def _observe(self, inner: Any, code: grpc.StatusCode) -> None:
        """Tell the policy, once, how an attempt ended.  An attempt that nobody awaits is not told."""
        subchannel = self._subchannel
        if self._dispatcher.observes and self._seen is not inner and subchannel is not None:
            self._seen = inner
            self._dispatcher.observe(subchannel, code, self._began)

    async def _settled(self) -> Any:
        while True:
            inner = await super()._settled()
            code = await inner.code()
            if not isinstance(inner, _Failed):
                self._observe(inner, code)
            if code is grpc.StatusCode.OK or isinstance(inner, _Failed) or inner.cancelled():
                return inner
            error = grpc.aio.AioRpcError(
                code,
                await inner.initial_metadata(),
                await inner.trailing_metadata(),
                await inner.details(),
            )
            if not self._again(inner, error):
                return inner

    def _again(self, inner: Any, error: grpc.aio.AioRpcError) -> bool:
        """Whether another attempt follows the failed ``inner``; the first to ask sets it off."""
        if self._inner is inner and self._moving is None and self._subchannel is not None:
            if self._attempts is None:
                self._attempts = self._dispatcher.attempts(self._retry)
            delay = delay_after(error, self._attempts, self._subchannel, self._deadline)
            if delay is None:
                return False
            self._tried += (self._subchannel,)
            self._move(delay)
        return True


class _ResponseStream(_AioCall):
    """Many responses."""

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._responses()

    async def _responses(self) -> AsyncIterator[Any]:
        async for response in await self._arrive():
            yield response

    async def read(self) -> Any:
        return await (await self._arrive()).read()


class _RequestStream(_AioCall):
    """Many requests."""

    async def write(self, request: Any) -> None:
        await (await self._arrive()).write(request)

    async def done_writing(self) -> None:
        await (await self._arrive()).done_writing()


class UnaryStreamCall(_ResponseStream, grpc.aio.UnaryStreamCall):  # type: ignore[type-arg]
    """One request, many responses, for which no endpoint was connected."""


class StreamUnaryCall(_RequestStream, grpc.aio.StreamUnaryCall):  # type: ignore[type-arg]
    """Many requests, one response, for which no endpoint was connected."""

    def __await__(self) -> Generator[Any, None, Any]:
        return self._result().__await__()

    async def _result(self) -> Any:
        return await (await self._arrive())


class StreamStreamCall(_RequestStream, _ResponseStream, grpc.aio.StreamStreamCall):  # type: ignore[type-arg]
    """Many requests, many responses, for which no endpoint was connected."""


def _rpc_error(code: grpc.StatusCode, details: str) -> grpc.aio.AioRpcError:
    empty = grpc.aio.Metadata()
    return grpc.aio.AioRpcError(
        code, empty, empty, details=details, debug_error_string=f"{code.name}:{details}"
    )
