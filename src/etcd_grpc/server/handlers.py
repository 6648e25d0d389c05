"""What interceptors do with gRPC's method handlers: look inside, and put another function there."""

from __future__ import annotations

import enum
import inspect
from collections.abc import Callable
from typing import Any, TypeAlias

import grpc

__all__ = ["Handler", "Kind", "Wrapped", "behavior_of", "kind_of", "rebuilt"]

_GRPC_ITSELF = "/grpc."
_MAX_METHODS = 1000  # a generic handler may answer to any name that a client makes up

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class Kind(enum.Enum):
    """How a handler of a ``grpc.aio`` server is called; what wraps it must be of the same kind."""

    COROUTINE = enum.auto()
    ASYNC_GENERATOR = enum.auto()
    FUNCTION = enum.auto()  # synchronous, on a thread
    GENERATOR = enum.auto()  # synchronous, with a stream of answers


def behavior_of(handler: Handler) -> Callable[..., Any]:
    """The application's function."""
    found: Any = (
        handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    )
    behavior: Callable[..., Any] = found
    return behavior


def kind_of(handler: Handler) -> Kind:
    """How the application's function is called."""
    behavior = behavior_of(handler)
    call = getattr(behavior, "__call__", None)  # noqa: B004 - the method itself is wanted
    if inspect.isasyncgenfunction(behavior) or inspect.isasyncgenfunction(call):
        return Kind.ASYNC_GENERATOR
    if inspect.iscoroutinefunction(behavior) or inspect.iscoroutinefunction(call):
        return Kind.COROUTINE
    return Kind.GENERATOR if handler.response_streaming else Kind.FUNCTION


def rebuilt(handler: Handler, behavior: Callable[..., Any]) -> Handler:
    """The same handler around another function."""
    make: Any = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[bool(handler.request_streaming), bool(handler.response_streaming)]
    made: Handler = make(behavior, handler.request_deserializer, handler.response_serializer)
    return made


class Wrapped:
    """The wrapped handlers by method: generated code has one for each, and wrapping is done once.

    gRPC's own services (health, reflection, channelz) stay as they are.

    Args:
        wrap: Makes the wrapped handler of a handler.
    """

    def __init__(self, wrap: Callable[[Handler], Handler]) -> None:
        self._wrap = wrap
        self._known: dict[str, tuple[Handler, Handler]] = {}

    def of(self, method: str, handler: Handler | None) -> Handler | None:
        """What an interceptor returns for ``handler``, which answers ``method``."""
        known = self._known.get(method)
        if known is not None and known[0] is handler:
            return known[1]
        if handler is None or method.startswith(_GRPC_ITSELF):
            return handler
        wrapped = self._wrap(handler)
        if len(self._known) < _MAX_METHODS or method in self._known:
            self._known[method] = (handler, wrapped)
        return wrapped
