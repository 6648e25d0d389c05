"""What interceptors do with gRPC's method handlers: look inside, and put another function there."""

from __future__ import annotations

import enum
import inspect
from collections.abc import Callable
from typing import Any, TypeAlias

import grpc

__all__ = ["Handler", "Kind", "behavior_of", "kind_of", "rebuilt"]

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
