"""Asyncio calls with one request, which can be sent again: as the retry policy says, or unseen.

No second attempt follows one of which the application has seen something: a response message, or the
initial metadata (gRFC A6: the call is committed then).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator
from typing import Any, Protocol

import grpc

from etcd_grpc.balancer.service_config import MethodConfig, RetryPolicy
from etcd_grpc.channel.aio.calls import (
    AioCall,
    AioDispatcher,
    AioSubchannel,
    Failed,
    Start,
    at_once,
)
from etcd_grpc.channel.next_attempt import delay_after
from etcd_grpc.channel.retry import Attempts
from etcd_grpc.channel.subchannel import SURE_S

__all__ = ["RepeatedCall", "ResponseStreamCall", "UnaryStreamCall", "UnaryUnaryCall", "error_of"]


class RepeatedCall(AioCall):
    """A call whose failed attempt may be followed by another one, at another endpoint.

    Args:
        retry: When it may be sent again; None for never, short of a call that never left.
        (the others): As ``AioCall``.
    """

    _attempts: Attempts | None = None  # made when the first one has failed
    _concluded: Any = None  # the attempt of whose end it was decided what follows
    _shown = False  # the application has seen something of the current attempt

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
        self._retry = retry
        super().__init__(dispatcher, start, deadline, wait_for_ready, metadata, subchannel, inner)

    def _previous(self) -> int:
        return 0 if self._attempts is None else self._attempts.previous

    def _conclude(self, inner: Any, error: grpc.aio.AioRpcError | None = None) -> bool:
        if self._concluded is inner:
            return self._inner is not inner or self._moving is not None
        self._concluded = inner
        code = at_once(inner.code()) if error is None else error.code()
        if code is None:
            return False
        self._tell(code)
        if code is grpc.StatusCode.OK or self._shown or inner.cancelled():
            return False
        return self._again(error or error_of(inner, code))

    def _tell(self, code: grpc.StatusCode) -> None:
        """Tell the policy and the throttle how an attempt ended."""
        dispatcher = self._dispatcher
        if dispatcher.observes and self._subchannel is not None:
            dispatcher.observe(self._subchannel, code, self._began)
        if code is grpc.StatusCode.OK and dispatcher.throttle is not None:
            dispatcher.throttle.succeeded()

    def _again(self, error: grpc.aio.AioRpcError) -> bool:
        subchannel = self._subchannel
        assert subchannel is not None
        if self._attempts is None:
            self._attempts = self._dispatcher.attempts(self._retry)
        delay_s = delay_after(error, self._attempts, subchannel, self._deadline)
        if delay_s is None:
            return False
        self._tried += (subchannel,)
        self._move(delay_s)
        return True

    async def _settled(self) -> Any:
        while True:
            inner = await self._present()
            await inner.code()
            if isinstance(inner, Failed) or not self._conclude(inner):
                return inner

    async def wait_for_connection(self) -> None:
        while True:
            inner = await self._claim()
            try:
                await inner.wait_for_connection()
            except grpc.aio.AioRpcError as error:
                if not self._conclude(inner, error):
                    raise
            else:
                return


class Sender(Protocol):
    """A method of a channel."""

    def send(
        self, subchannel: AioSubchannel, timeout: float | None, previous: int, *arguments: Any
    ) -> Any:
        """Start an attempt, with ``timeout`` seconds left and after ``previous`` others."""


class UnaryUnaryCall(RepeatedCall, grpc.aio.UnaryUnaryCall):  # type: ignore[type-arg]
    """One request, one response.

    Nearly all calls are such calls and end with their first attempt, and with them each step counts: so
    nothing is made here that only others need, and one done callback does all that has to be done.

    Args:
        dispatcher: Where endpoints come from.
        sender: Starts an attempt and counts it as in flight; here it is counted out.
        config: What the service config says of the method.
        began: When, on time.monotonic's clock.
        deadline: On time.monotonic's clock.
        wait_for_ready: As the caller of the RPC asked.
        arguments: Of the call: its request, its metadata, and what else ``send`` takes.
        subchannel, inner: The first attempt and where it is made; None: wait for an endpoint.
    """

    _awaited = False

    def __init__(
        self,
        dispatcher: AioDispatcher,
        sender: Sender,
        config: MethodConfig,
        began: float,
        deadline: float | None,
        wait_for_ready: bool | None,
        arguments: tuple[Any, ...],
        subchannel: AioSubchannel | None,
        inner: Any,
    ) -> None:
        self._dispatcher = dispatcher
        self._sender = sender
        self._retry = config.retry
        self._config = config
        self._began = began
        self._deadline = deadline
        self._asked = wait_for_ready
        self._arguments = arguments
        self._subchannel = subchannel
        self._inner = inner
        if inner is None:
            self._move(0.0)
        else:
            inner.add_done_callback(self._ended)

    def _wishes(self) -> tuple[Any, bool]:
        asked = self._asked
        return self._arguments[1], bool(self._config.wait_for_ready if asked is None else asked)

    def _attempt(self, subchannel: AioSubchannel, left: float | None) -> Any:
        return self._sender.send(subchannel, left, self._previous(), *self._arguments)

    def _ended(self, inner: Any) -> None:
        self._subchannel.in_flight.pop()  # type: ignore[union-attr]
        # Whoever awaits the call sees how the attempt ended, in a moment, and at no further cost.
        if self._callbacks or not self._awaited:
            super()._ended(inner)

    def __await__(self) -> Generator[Any, None, Any]:
        self._awaited = True
        while True:
            if self._moving is not None:
                yield from self._claim().__await__()
            inner = self._inner
            try:
                response = yield from inner.__await__()
            except grpc.aio.AioRpcError as error:
                if not self._conclude(inner, error):
                    raise
            else:
                if self._concluded is not inner:
                    self._concluded = inner
                    dispatcher, subchannel = self._dispatcher, self._subchannel
                    assert subchannel is not None
                    subchannel.sure_until = self._began + SURE_S
                    if dispatcher.observes:
                        dispatcher.succeeded(subchannel, self._began)
                    if dispatcher.throttle is not None:
                        dispatcher.throttle.succeeded()
                return response


class ResponseStreamCall(RepeatedCall):
    """Many responses.

    An attempt can end while its first message is on its way to who reads it.  So whether another one
    follows is left to those who read at that moment.
    """

    _readers = 0
    _left: asyncio.Event | None = None  # set when the last of them has gone
    _iterator: AsyncIterator[Any] | None = None

    def _ended(self, inner: Any) -> None:
        if not self._being_read():
            super()._ended(inner)

    def _show(self) -> None:
        """The application sees something of the current attempt: the call is committed."""
        self._shown = True

    def _being_read(self) -> bool:
        return self._readers > 0 and not self._shown

    def _leave(self, inner: Any) -> None:
        """Somebody reads no more."""
        self._readers -= 1
        if self._readers == 0:
            if self._left is not None:
                self._left.set()
                self._left = None
            if inner.done():
                self._ended(inner)

    def done(self) -> bool:
        return not self._being_read() and super().done()

    async def _unread(self) -> None:
        """Until it is known whether a message is shown."""
        while self._being_read():
            self._left = self._left or asyncio.Event()
            await self._left.wait()

    async def _settled(self) -> Any:
        while True:
            inner = await self._present()
            await inner.code()
            await self._unread()
            if isinstance(inner, Failed) or not self._conclude(inner):
                return inner

    async def initial_metadata(self) -> Any:
        while True:
            inner = await self._present()
            metadata = await inner.initial_metadata()
            if isinstance(inner, Failed):
                return metadata
            if not inner.done():
                self._show()
                return metadata
            await self._unread()
            if not self._conclude(inner):
                return metadata

    def __aiter__(self) -> AsyncIterator[Any]:
        if self._iterator is None:
            self._iterator = self._responses()
        return self._iterator

    async def _responses(self) -> AsyncIterator[Any]:
        while True:
            inner = await self._claim()
            self._readers += 1
            try:
                async for response in inner:
                    self._show()
                    yield response
            except grpc.aio.AioRpcError as error:
                if not self._conclude(inner, error):
                    raise
            else:
                return
            finally:
                self._leave(inner)

    async def read(self) -> Any:
        while True:
            inner = await self._claim()
            self._readers += 1
            try:
                response = await inner.read()
            except grpc.aio.AioRpcError as error:
                if not self._conclude(inner, error):
                    raise
            else:
                self._show()
                return response
            finally:
                self._leave(inner)


class UnaryStreamCall(ResponseStreamCall, grpc.aio.UnaryStreamCall):  # type: ignore[type-arg]
    """One request, many responses."""


def error_of(inner: Any, code: grpc.StatusCode) -> grpc.aio.AioRpcError:
    """The error of an attempt that has ended."""
    return grpc.aio.AioRpcError(
        code,
        at_once(inner.initial_metadata()) or grpc.aio.Metadata(),
        at_once(inner.trailing_metadata()) or grpc.aio.Metadata(),
        at_once(inner.details()),
    )
