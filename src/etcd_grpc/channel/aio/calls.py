"""Asyncio calls that outlive the moment in which they are made.

An ``AioCall`` answers as its current attempt does.  While there is none (no endpoint is connected yet,
or another attempt is due), ``_moving`` is the task that brings it; everything that needs an attempt
awaits that task first.  An attempt's own done callback drives what follows it, so a call that nobody
awaits goes on, and ends, as one on a plain channel does.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from typing import Any, TypeVar

import grpc

from etcd_grpc.channel.dispatch import Dispatcher
from etcd_grpc.channel.next_attempt import left_until
from etcd_grpc.channel.subchannel import Subchannel

__all__ = [
    "AioCall",
    "AioDispatcher",
    "AioSubchannel",
    "Awaiting",
    "Failed",
    "Start",
    "StreamStreamCall",
    "StreamUnaryCall",
    "at_once",
    "rpc_error",
]

T = TypeVar("T")
AioSubchannel = Subchannel[grpc.aio.Channel]
AioDispatcher = Dispatcher[grpc.aio.Channel]
# Starts one attempt, given what is left of the deadline in seconds and how many attempts were before.
Start = Callable[[AioSubchannel, float | None, int], Any]

_CANCELLED = "Locally cancelled by application!"


class Awaiting:
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
        if self.served.done():
            return
        if code is grpc.StatusCode.CANCELLED:  # the channel is closed, which cancels its calls
            self.served.cancel()
        else:
            self.served.set_exception(rpc_error(code, why))


class Failed:
    """Stands in for the attempt of a call that never got one."""

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        self.error = error

    async def code(self) -> grpc.StatusCode:
        return self.error.code()

    async def details(self) -> str:
        return self.error.details() or ""

    async def initial_metadata(self) -> Any:
        return self.error.initial_metadata()

    async def trailing_metadata(self) -> Any:
        return self.error.trailing_metadata()

    async def debug_error_string(self) -> str:
        return self.error.debug_error_string() or ""


class AioCall:
    """What all shapes have in common.

    Args:
        dispatcher: Where endpoints come from.
        start: Starts an attempt.
        deadline: On time.monotonic's clock.
        wait_for_ready: As the caller of the RPC asked.
        metadata: Of the call, for policies that look at it.
        subchannel, inner: The first attempt and where it is made; None: wait for an endpoint.
    """

    # What most calls never need is not made for each of them.
    _moving: asyncio.Task[None] | None = None
    _tried: tuple[AioSubchannel, ...] = ()
    _callbacks: tuple[Callable[[Any], None], ...] = ()
    _began = 0.0  # when the current attempt was, where the policy wants to know

    def __init__(
        self,
        dispatcher: AioDispatcher,
        start: Start,
        deadline: float | None,
        wait_for_ready: bool,
        metadata: Any = None,
        subchannel: AioSubchannel | None = None,
        inner: Any = None,
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
        if inner is None:
            self._move(0.0)
        else:
            inner.add_done_callback(self._ended)

    # The attempts.

    def _move(self, delay_s: float) -> None:
        self._moving = asyncio.get_running_loop().create_task(self._next(delay_s))
        self._moving.add_done_callback(self._moved)

    def _moved(self, moving: asyncio.Task[None]) -> None:
        # The exception is for those who await the call; nobody has to.
        if moving.cancelled() or moving.exception() is not None:
            self._finish()

    async def _next(self, delay_s: float) -> None:
        """Bring the next attempt."""
        if delay_s:
            await pause(self._dispatcher, delay_s)
        metadata, wait_for_ready = self._wishes()
        subchannel = self._dispatcher.pick(self._tried, metadata)
        if subchannel is None:
            waiter = Awaiting(self._deadline, wait_for_ready, metadata)
            self._dispatcher.enqueue(waiter)
            subchannel = await waiter.served
        self._subchannel = subchannel
        self._began = time.monotonic()
        self._inner = self._attempt(subchannel, left_until(self._deadline))
        self._moving = None
        self._inner.add_done_callback(self._ended)

    def _wishes(self) -> tuple[Any, bool]:
        """The call's metadata, and whether it waits for ready."""
        return self._metadata, self._wait_for_ready

    def _attempt(self, subchannel: AioSubchannel, left: float | None) -> Any:
        """Start an attempt, with what is left of the deadline in seconds."""
        return self._start(subchannel, left, self._previous())

    def _ended(self, inner: Any) -> None:
        if not self._conclude(inner):
            self._finish()

    def _conclude(self, inner: Any, error: grpc.aio.AioRpcError | None = None) -> bool:
        """An attempt has ended: return whether another one follows it."""
        del inner, error
        return False

    def _finish(self) -> None:
        """The call has ended for good."""
        callbacks, self._callbacks = self._callbacks, ()
        for callback in callbacks:
            try:
                callback(self)
            except Exception as error:  # noqa: BLE001 - the application's code, isolated
                asyncio.get_running_loop().call_exception_handler(
                    {"message": "a done callback of a call raised", "exception": error}
                )

    def _previous(self) -> int:
        """How many attempts a server may have seen before the one that begins."""
        return 0

    async def _arrive(self) -> Any:
        """The current attempt, when there is one.

        Raises:
            grpc.aio.AioRpcError: There will be none.
            asyncio.CancelledError: The call was cancelled before.
        """
        while (moving := self._moving) is not None:
            await asyncio.wait({moving})
            moving.result()
        return self._inner

    async def _claim(self) -> Any:
        """As ``_arrive``, for what ends the call when it is cancelled itself."""
        try:
            return await self._arrive()
        except asyncio.CancelledError:
            self.cancel()
            raise

    async def _present(self) -> Any:
        """The current attempt, or what stands in for it if there will be none."""
        try:
            return await self._arrive()
        except grpc.aio.AioRpcError as error:
            return Failed(error)
        except asyncio.CancelledError:
            if not self.cancelled():
                raise
            return Failed(rpc_error(grpc.StatusCode.CANCELLED, _CANCELLED))

    async def _settled(self) -> Any:
        """The attempt that is the final one, or what stands in for it."""
        return await self._present()

    # grpc.aio.Call

    def cancel(self) -> bool:
        if self.done():
            return False
        if self._moving is not None:
            return self._moving.cancel()
        return bool(self._inner.cancel())

    def cancelled(self) -> bool:
        if self._moving is not None:
            return self._moving.cancelled() or bool(self._moving.cancelling())
        return bool(self._inner.cancelled())

    def done(self) -> bool:
        if self._moving is not None:
            return self._moving.done() or bool(self._moving.cancelling())
        return self._inner.done() and not self._conclude(self._inner)

    def time_remaining(self) -> float | None:
        return left_until(self._deadline)

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        if self.done():
            callback(self)
        else:
            self._callbacks += (callback,)

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
        await (await self._claim()).wait_for_connection()

    def __repr__(self) -> str:
        if self._moving is None and self.done():
            return repr(self._inner)
        return f"<{type(self).__name__} object>"

    __str__ = __repr__


class _RequestStream(AioCall):
    """Many requests: sent once, since part of them may have been consumed."""

    @property
    def _done_writing_flag(self) -> bool:
        """gRPC's intercepted calls ask for it."""
        return self._inner is not None and bool(self._inner._done_writing_flag)

    async def write(self, request: Any) -> None:
        await (await self._claim()).write(request)

    async def done_writing(self) -> None:
        await (await self._claim()).done_writing()


class StreamUnaryCall(_RequestStream, grpc.aio.StreamUnaryCall):  # type: ignore[type-arg]
    """Many requests, one response, for which no endpoint was connected."""

    def __await__(self) -> Generator[Any, None, Any]:
        return self._result().__await__()

    async def _result(self) -> Any:
        return await (await self._claim())


class StreamStreamCall(_RequestStream, grpc.aio.StreamStreamCall):  # type: ignore[type-arg]
    """Many requests, many responses, for which no endpoint was connected."""

    _iterator: AsyncIterator[Any] | None = None

    def __aiter__(self) -> AsyncIterator[Any]:
        if self._iterator is None:
            self._iterator = self._responses()
        return self._iterator

    async def _responses(self) -> AsyncIterator[Any]:
        async for response in await self._claim():
            yield response

    async def read(self) -> Any:
        return await (await self._claim()).read()


def at_once(coroutine: Coroutine[Any, Any, T]) -> T | None:
    """The result of a coroutine that has nothing to wait for, because its call has ended.

    None if it does wait: an interceptor of the application may return a call of its own kind.
    """
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    coroutine.close()
    return None


async def pause(dispatcher: AioDispatcher, delay_s: float) -> None:
    """Sleep, but no longer than the channel is open."""
    due = asyncio.Event()
    if dispatcher.later(delay_s, due.set):
        await due.wait()


def rpc_error(code: grpc.StatusCode, details: str) -> grpc.aio.AioRpcError:
    """The error of a call that has no attempt to ask."""
    empty = grpc.aio.Metadata()
    return grpc.aio.AioRpcError(
        code, empty, empty, details=details, debug_error_string=f"{code.name}:{details}"
    )
