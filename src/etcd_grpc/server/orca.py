"""Server interceptors: every answer tells in its trailing metadata how busy this process is (A51).

Clients with ``weighted_round_robin`` (gRFC A58) weigh by it: those of gRPC's C core, and our channels.
``load_report`` says in which form it travels, ``load_reporter`` how it is measured.

What the application sets as trailing metadata stays, whenever it does; a header of these names that
it sets itself wins.  What cannot be had on a ``grpc.aio`` server: an answer carries no report if its
handler sets trailing metadata and then aborts (the abort sends them at once), or if it is a
synchronous handler that sets any (its context does not tell what was set).

gRPC's own services (health, reflection, channelz) neither count nor report: a health Watch that stays
open all day is no load.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import grpc

from etcd_grpc.balancer.ticket import FAULTS
from etcd_grpc.server.handlers import Handler, Kind, Wrapped, behavior_of, kind_of, rebuilt
from etcd_grpc.server.load_reporter import Headers, LoadReporter, process_reporter

__all__ = ["AsyncLoadInterceptor", "LoadInterceptor", "LoadReporter", "process_reporter"]

_FAULTS = FAULTS | {code.value[0] for code in FAULTS}  # grpc.aio's contexts tell the number
_OK = (None, 0, grpc.StatusCode.OK)


class LoadInterceptor(grpc.ServerInterceptor):
    """For ``grpc.server(interceptors=[...])``; first in the list, so that the others' time counts.

    Args:
        reporter: Whose reports are attached; None: this process's.
    """

    def __init__(self, reporter: LoadReporter | None = None) -> None:
        self._wrapped = Wrapped(_Sync(reporter or process_reporter()).wrap)

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Handler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Called by gRPC for each call."""
        return self._wrapped.of(handler_call_details.method, continuation(handler_call_details))


class AsyncLoadInterceptor(grpc.aio.ServerInterceptor):
    """For ``grpc.aio.server(interceptors=[...])``; as ``LoadInterceptor``."""

    def __init__(self, reporter: LoadReporter | None = None) -> None:
        reporter = reporter or process_reporter()
        self._wrapped = Wrapped(_Async(reporter).wrap)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Called by gRPC for each call."""
        return self._wrapped.of(handler_call_details.method, await continuation(handler_call_details))


def _attach(context: Any, headers: Headers, before: Headers = ()) -> None:
    """Add the headers to what the application has set; ``before`` is what was attached at first."""
    found = tuple(context.trailing_metadata() or ())
    if found == before:
        if headers is not before:
            context.set_trailing_metadata(headers)
        return
    theirs = tuple(header for header in found if header not in before)
    names = {name for name, _ in theirs}
    context.set_trailing_metadata(theirs + tuple(h for h in headers if h[0] not in names))


@contextlib.contextmanager
def _counted(reporter: LoadReporter) -> Iterator[None]:
    """A synchronous handler on an asyncio server: what it aborted with is not told, so no failure."""
    try:
        yield
    except (grpc.aio.AbortError, GeneratorExit):
        reporter.end(failed=False)
        raise
    except BaseException:
        reporter.end(failed=True)
        raise
    reporter.end(failed=False)


class _Sync:
    """Wraps the handlers of a ``grpc.server``, whose status and metadata go out after they return."""

    def __init__(self, reporter: LoadReporter) -> None:
        self._reporter = reporter

    def wrap(self, handler: Handler) -> Handler:
        behavior = behavior_of(handler)
        if getattr(behavior, "experimental_non_blocking", False):  # calls back, with other arguments
            return handler
        wrapped = self._stream(behavior) if handler.response_streaming else self._unary(behavior)
        return rebuilt(handler, functools.wraps(behavior)(wrapped))

    def _unary(self, behavior: Callable[..., Any]) -> Callable[..., Any]:
        begin, end = self._reporter.begin, self._end

        def unary(request: Any, context: grpc.ServicerContext) -> Any:
            begin()
            try:
                answer = behavior(request, context)
            except BaseException:
                end(context, raised=True)
                raise
            end(context)
            return answer

        return unary

    def _stream(self, behavior: Callable[..., Any]) -> Callable[..., Any]:
        begin, end = self._reporter.begin, self._end

        def stream(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            begin()
            try:
                yield from behavior(request, context)
            except GeneratorExit:  # the client has gone
                end(context)
                raise
            except BaseException:
                end(context, raised=True)
                raise
            end(context)

        return stream

    def _end(self, context: Any, *, raised: bool = False) -> None:
        code = context.code()
        failed = code in _FAULTS or (raised and code in _OK)  # which becomes UNKNOWN
        _attach(context, self._reporter.end(failed=failed))


class _Async:
    """Wraps the handlers of a ``grpc.aio.server``: of each kind by a function of the same kind.

    The report as of the beginning is attached before the handler runs, for the case that it aborts.
    """

    def __init__(self, reporter: LoadReporter) -> None:
        self._reporter = reporter

    def wrap(self, handler: Handler) -> Handler:
        behavior = behavior_of(handler)
        wrap = {
            Kind.ASYNC_GENERATOR: self._async_generator,
            Kind.COROUTINE: self._coroutine,
            Kind.GENERATOR: self._generator,
            Kind.FUNCTION: self._function,
        }[kind_of(handler)]
        return rebuilt(handler, wrap(behavior))

    def _coroutine(self, behavior: Callable[..., Any]) -> Callable[..., Any]:
        begin, end = self._begin, self._end

        async def coroutine(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            before = begin(context)
            try:
                answer = await behavior(request, context)
            except BaseException as error:
                end(context, before, error)
                raise
            end(context, before)
            return answer

        return coroutine

    def _async_generator(self, behavior: Callable[..., Any]) -> Callable[..., Any]:
        begin, end = self._begin, self._end

        async def generator(
            request: Any, context: grpc.aio.ServicerContext[Any, Any]
        ) -> AsyncIterator[Any]:
            before = begin(context)
            try:
                async for answer in behavior(request, context):
                    yield answer
            except BaseException as error:
                end(context, before, error)
                raise
            end(context, before)

        return generator

    def _function(self, behavior: Callable[..., Any]) -> Callable[..., Any]:
        reporter = self._reporter

        def function(request: Any, context: Any) -> Any:
            context.set_trailing_metadata(reporter.begin())
            with _counted(reporter):
                return behavior(request, context)

        return function

    def _generator(self, behavior: Callable[..., Any]) -> Callable[..., Any]:
        reporter = self._reporter

        def generator(request: Any, context: Any) -> Iterator[Any]:
            context.set_trailing_metadata(reporter.begin())
            with _counted(reporter):
                yield from behavior(request, context)

        return generator

    def _begin(self, context: Any) -> Headers:
        headers = self._reporter.begin()
        if headers:
            context.set_trailing_metadata(headers)
        return headers

    def _end(self, context: Any, before: Headers, error: BaseException | None = None) -> None:
        code = context.code()
        gone = isinstance(error, (asyncio.CancelledError, GeneratorExit))
        failed = code in _FAULTS or (error is not None and not gone and code in _OK)
        _attach(context, self._reporter.end(failed=failed), before)
