"""Interceptors that refuse a call whose client may not make it, by its certificate."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import grpc

from etcd_grpc.server.handlers import Handler, Kind, behavior_of, kind_of, rebuilt
from etcd_grpc.server.peer import Allowed, AllowedClients, peer_of

__all__ = ["AsyncPeerCheck", "PeerCheck"]


class PeerCheck(grpc.ServerInterceptor):
    """For ``grpc.server(interceptors=[...])``; first in the list, so that nothing else runs before it.

    Args:
        allowed: As ``ServerTls`` takes it.

    Raises:
        ConfigurationError: ``allowed`` is malformed.
    """

    def __init__(self, allowed: AllowedClients) -> None:
        self._allowed = Allowed(allowed)

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Handler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Called by gRPC for each call."""
        handler = continuation(handler_call_details)
        if handler is None:
            return None
        behavior, method, allowed = behavior_of(handler), handler_call_details.method, self._allowed

        @functools.wraps(behavior)
        def guarded(request: Any, context: grpc.ServicerContext, *more: Any) -> Any:
            why = _refusal(allowed, method, context)
            if why:
                context.abort(grpc.StatusCode.PERMISSION_DENIED, why)
            return behavior(request, context, *more)

        return rebuilt(handler, guarded)


class AsyncPeerCheck(grpc.aio.ServerInterceptor):
    """For ``grpc.aio.server(interceptors=[...])``; as ``PeerCheck``."""

    def __init__(self, allowed: AllowedClients) -> None:
        self._allowed = Allowed(allowed)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Called by gRPC for each call."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        refusal = functools.partial(_refusal, self._allowed, handler_call_details.method)
        guard = {
            Kind.COROUTINE: _coroutine,
            Kind.ASYNC_GENERATOR: _async_generator,
            Kind.FUNCTION: _function,
            Kind.GENERATOR: _generator,
        }[kind_of(handler)]
        return rebuilt(handler, guard(behavior_of(handler), refusal))


_Refusal = Callable[[Any], str]


def _refusal(allowed: Allowed, method: str, context: Any) -> str:
    """Why the call is refused; "" if it is not."""
    peer = peer_of(context.auth_context())
    return "" if allowed.permits(method, peer) else f"{method} is not permitted to {peer}"


def _coroutine(behavior: Callable[..., Any], refusal: _Refusal) -> Callable[..., Any]:
    async def guarded(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        if why := refusal(context):
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, why)
        return await behavior(request, context)

    return guarded


def _async_generator(behavior: Callable[..., Any], refusal: _Refusal) -> Callable[..., Any]:
    async def guarded(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
        if why := refusal(context):
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, why)
        async for answer in behavior(request, context):
            yield answer

    return guarded


def _function(behavior: Callable[..., Any], refusal: _Refusal) -> Callable[..., Any]:
    def guarded(request: Any, context: Any) -> Any:
        if why := refusal(context):
            context.abort(grpc.StatusCode.PERMISSION_DENIED, why)
        return behavior(request, context)

    return guarded


def _generator(behavior: Callable[..., Any], refusal: _Refusal) -> Callable[..., Any]:
    def guarded(request: Any, context: Any) -> Iterator[Any]:
        if why := refusal(context):
            context.abort(grpc.StatusCode.PERMISSION_DENIED, why)
        yield from behavior(request, context)

    return guarded
