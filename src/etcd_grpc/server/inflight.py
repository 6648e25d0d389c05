"""How many calls a server has in flight, counted by an interceptor of its world.

The rule: it counts calls of the application.  Health checks, reflection and channelz (``/grpc.``) may
last as long as their clients please, and nobody would miss them.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

__all__ = ["AsyncInFlightInterceptor", "InFlight", "InFlightInterceptor"]

_INFRASTRUCTURE = "/grpc."
_BEHAVIOURS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


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
    """Counts the calls of a synchronous server, from the start of a handler to the end of the call."""

    def __init__(self, in_flight: InFlight) -> None:
        self._in_flight = in_flight

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Any],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """See ``grpc.ServerInterceptor``."""
        handler = continuation(handler_call_details)
        if handler is None or handler_call_details.method.startswith(_INFRASTRUCTURE):
            return handler
        return _with_behaviour(handler, self._counted)

    def _counted(self, behaviour: Callable[..., Any]) -> Callable[..., Any]:
        in_flight = self._in_flight

        @functools.wraps(behaviour)
        def counted(request: Any, context: grpc.ServicerContext, *more: Any) -> Any:
            in_flight.began()
            if not context.add_callback(in_flight.ended):  # it is over already
                in_flight.ended()
            return behaviour(request, context, *more)

        return counted


class AsyncInFlightInterceptor(grpc.aio.ServerInterceptor):
    """Counts the calls of an asyncio server, from the start of a handler to its end."""

    def __init__(self, in_flight: InFlight) -> None:
        self._in_flight = in_flight

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """See ``grpc.aio.ServerInterceptor``."""
        handler = await continuation(handler_call_details)
        if handler is None or handler_call_details.method.startswith(_INFRASTRUCTURE):
            return handler
        return _with_behaviour(handler, self._counted)

    def _counted(self, behaviour: Callable[..., Any]) -> Callable[..., Any]:
        """``behaviour``, counted, as the kind of function that it is: grpc.aio looks at that."""
        in_flight = self._in_flight

        if inspect.isasyncgenfunction(behaviour):

            async def messages(request: Any, context: Any) -> AsyncIterator[Any]:
                in_flight.began()
                try:
                    async with contextlib.aclosing(behaviour(request, context)) as answers:
                        async for answer in answers:
                            yield answer
                finally:
                    in_flight.ended()

            return messages

        if inspect.iscoroutinefunction(behaviour):

            async def answer(request: Any, context: Any) -> Any:
                in_flight.began()
                try:
                    return await behaviour(request, context)
                finally:
                    in_flight.ended()

            return answer

        return _counted_in_thread(in_flight, behaviour)


def _counted_in_thread(in_flight: InFlight, behaviour: Callable[..., Any]) -> Callable[..., Any]:
    """A handler that grpc.aio runs on a thread: a function, or one that returns an iterator."""

    def counted(request: Any, context: Any) -> Any:
        in_flight.began()
        try:
            answer = behaviour(request, context)
        except BaseException:
            in_flight.ended()
            raise
        if not inspect.isgenerator(answer):
            in_flight.ended()
            return answer
        return rest(answer)

    def rest(answers: Any) -> Any:
        try:
            yield from answers
        finally:
            in_flight.ended()

    return counted


def _with_behaviour(handler: Any, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Any:
    """``handler`` with its one behaviour wrapped."""
    for name in _BEHAVIOURS:
        behaviour = getattr(handler, name)
        if behaviour is not None:
            make = getattr(grpc, f"{name}_rpc_method_handler")
            return make(wrap(behaviour), handler.request_deserializer, handler.response_serializer)
    return handler
