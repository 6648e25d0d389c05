"""How many calls a server has in flight, counted by an interceptor of its world.

The rule: it counts calls of the application.  Health checks, reflection and channelz may last as long
as their clients please, and nobody would miss them.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import grpc

from etcd_grpc.server.handlers import Handler, Kind, Wrapped, behavior_of, kind_of, rebuilt

__all__ = ["AsyncInFlightInterceptor", "InFlight", "InFlightInterceptor"]


class InFlight:
    """A count that any thread may change: appending to and popping from a list is atomic."""

    __slots__ = ("_calls",)

    def __init__(self) -> None:
        self._calls: list[None] = []

    @property
    def count(self) -> int:
        """How many calls are in flight at this moment."""
        return len(self._calls)

    def began(self) -> None:
        """One more."""
        self._calls.append(None)

    def ended(self) -> None:
        """One less."""
        self._calls.pop()


class InFlightInterceptor(grpc.ServerInterceptor):
    """Counts the calls of a synchronous server, from the start of a handler to the end of the call.

    Args:
        in_flight: Where they are counted.
    """

    def __init__(self, in_flight: InFlight) -> None:
        self._in_flight = in_flight
        self._wrapped = Wrapped(self._wrap)

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Handler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Called by gRPC for each call."""
        return self._wrapped.of(handler_call_details.method, continuation(handler_call_details))

    def _wrap(self, handler: Handler) -> Handler:
        in_flight, behavior = self._in_flight, behavior_of(handler)

        @functools.wraps(behavior)  # also what marks a handler that calls back
        def counted(request: Any, context: grpc.ServicerContext, *more: Any) -> Any:
            in_flight.began()
            if not context.add_callback(in_flight.ended):  # it is over already
                in_flight.ended()
            return behavior(request, context, *more)

        return rebuilt(handler, counted)


class AsyncInFlightInterceptor(grpc.aio.ServerInterceptor):
    """Counts the calls of an asyncio server, from the start of a handler to its end.

    Not those of synchronous generators: the server's own graceful stop has to finish them.

    Args:
        in_flight: Where they are counted.
    """

    def __init__(self, in_flight: InFlight) -> None:
        self._in_flight = in_flight
        self._wrapped = Wrapped(self._wrap)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Called by gRPC for each call."""
        return self._wrapped.of(handler_call_details.method, await continuation(handler_call_details))

    def _wrap(self, handler: Handler) -> Handler:
        behavior = behavior_of(handler)
        match kind_of(handler):
            case Kind.ASYNC_GENERATOR:
                return rebuilt(handler, self._async_generator(behavior))
            case Kind.COROUTINE:
                return rebuilt(handler, self._coroutine(behavior))
            case Kind.FUNCTION:
                return rebuilt(handler, self._function(behavior))
            case Kind.GENERATOR:
                # If its client leaves, grpc.aio neither ends it nor says so (seen with 1.85).
                return handler

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        self._in_flight.began()
        try:
            yield
        finally:
            self._in_flight.ended()

    def _coroutine(self, behavior: Callable[..., Any]) -> Callable[..., Any]:
        async def coroutine(request: Any, context: Any) -> Any:
            with self._counted():
                return await behavior(request, context)

        return coroutine

    def _async_generator(self, behavior: Callable[..., Any]) -> Callable[..., Any]:
        async def generator(request: Any, context: Any) -> AsyncIterator[Any]:
            with self._counted():
                async with contextlib.aclosing(behavior(request, context)) as answers:
                    async for answer in answers:
                        yield answer

        return generator

    def _function(self, behavior: Callable[..., Any]) -> Callable[..., Any]:
        def function(request: Any, context: Any) -> Any:
            with self._counted():
                return behavior(request, context)

        return function
