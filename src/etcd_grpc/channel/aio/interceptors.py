"""Interceptors of an asyncio channel: once for each call, around all that balancing does with it.

gRPC's own classes run them, so that they see what they see on a plain channel: the same
``ClientCallDetails``, calls that are cancelled inside an interceptor, responses in the place of calls.
The last interceptor of every chain is ours.  It does not go on to gRPC's call but makes a balanced one,
with whatever method, metadata and timeout the others have left it.  The real channels have none.

The classes are private to ``grpc.aio``, in all releases that we support with these first arguments; the
contract tests hold this file to the release that is installed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import grpc
from grpc.aio import _channel, _interceptor

__all__ = ["InterceptorChains", "Interceptors"]

Interceptors = Sequence[grpc.aio.ClientInterceptor]
# Makes the balanced multi-callable for a method's path.
Make = Callable[[str], Any]
Metadata = Any  # whatever a plain channel takes

# In the order in which gRPC asks of which kind an interceptor is.
_KINDS = {
    "unary_unary": grpc.aio.UnaryUnaryClientInterceptor,
    "unary_stream": grpc.aio.UnaryStreamClientInterceptor,
    "stream_unary": grpc.aio.StreamUnaryClientInterceptor,
    "stream_stream": grpc.aio.StreamStreamClientInterceptor,
}
_CALLS = {
    "unary_unary": _interceptor.InterceptedUnaryUnaryCall,
    "unary_stream": _interceptor.InterceptedUnaryStreamCall,
    "stream_unary": _interceptor.InterceptedStreamUnaryCall,
    "stream_stream": _interceptor.InterceptedStreamStreamCall,
}


class InterceptorChains:
    """The interceptors of one channel, by the shape of the calls that they intercept.

    Args:
        interceptors: As the application has given them.

    Raises:
        ValueError: One of them is none.
    """

    def __init__(self, interceptors: Iterable[grpc.aio.ClientInterceptor] | None) -> None:
        self._chains: dict[str, list[grpc.aio.ClientInterceptor]] = {shape: [] for shape in _KINDS}
        for interceptor in interceptors or ():
            shape = next((s for s, kind in _KINDS.items() if isinstance(interceptor, kind)), None)
            if shape is None:
                names = " or ".join(kind.__name__ for kind in _KINDS.values())
                raise ValueError(f"Interceptor {interceptor} must be {names}.")
            self._chains[shape].append(interceptor)

    def around(self, shape: str, method: str, make: Make, track: Callable[[Any], None]) -> Any:
        """The multi-callable of ``method``, with the interceptors of its shape around it.

        Args:
            shape: "unary_unary" and so on.
            method: Its path.
            make: Makes balanced multi-callables.
            track: Told of every call that is made through interceptors.
        """
        chain = self._chains[shape]
        return _INTERCEPTED[shape](chain, shape, method, make, track) if chain else make(method)


class _Send(*_KINDS.values()):  # type: ignore[misc]
    """The last one: makes the balanced call."""

    def __init__(self, method: str, make: Make) -> None:
        self._make = make
        self._made = {method: make(method)}  # interceptors may change the method

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        del continuation
        method = details.method.decode() if isinstance(details.method, bytes) else details.method
        if method not in self._made:
            self._made[method] = self._make(method)
        return self._made[method](
            request,
            timeout=details.timeout,
            metadata=details.metadata,
            credentials=details.credentials,
            wait_for_ready=details.wait_for_ready,
        )

    intercept_unary_stream = intercept_unary_unary
    intercept_stream_unary = intercept_unary_unary
    intercept_stream_stream = intercept_unary_unary


class _Intercepted:
    """A multi-callable with interceptors around it."""

    def __init__(
        self,
        chain: Sequence[grpc.aio.ClientInterceptor],
        shape: str,
        method: str,
        make: Make,
        track: Callable[[Any], None],
    ) -> None:
        self._chain = [*chain, _Send(method, make)]
        self._call = _CALLS[shape]
        self._method = method.encode()
        self._track = track

    def _intercept(
        self,
        request: Any,
        timeout: float | None,
        metadata: Metadata,
        credentials: grpc.CallCredentials | None,
        wait_for_ready: bool | None,
        compression: grpc.Compression | None,
    ) -> Any:
        call = self._call(
            self._chain,
            request,
            timeout,
            _channel._BaseMultiCallable._init_metadata(metadata, compression),
            credentials,
            wait_for_ready,
            None,  # the channel and the serializers of the call that the chain does not come to
            self._method,
            None,
            None,
            asyncio.get_running_loop(),
        )
        self._track(call)
        return call


class _UnaryRequest(_Intercepted):
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
        return self._intercept(request, timeout, metadata, credentials, wait_for_ready, compression)


class _StreamRequest(_Intercepted):
    def __call__(
        self,
        request_iterator: Any = None,
        timeout: float | None = None,
        metadata: Metadata = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        return self._intercept(
            request_iterator, timeout, metadata, credentials, wait_for_ready, compression
        )


class _UnaryUnary(_UnaryRequest, grpc.aio.UnaryUnaryMultiCallable):  # type: ignore[type-arg]
    pass


class _UnaryStream(_UnaryRequest, grpc.aio.UnaryStreamMultiCallable):  # type: ignore[type-arg]
    pass


class _StreamUnary(_StreamRequest, grpc.aio.StreamUnaryMultiCallable):  # type: ignore[type-arg]
    pass


class _StreamStream(_StreamRequest, grpc.aio.StreamStreamMultiCallable):  # type: ignore[type-arg]
    pass


_INTERCEPTED: dict[str, Callable[..., Any]] = {
    "unary_unary": _UnaryUnary,
    "unary_stream": _UnaryStream,
    "stream_unary": _StreamUnary,
    "stream_stream": _StreamStream,
}
