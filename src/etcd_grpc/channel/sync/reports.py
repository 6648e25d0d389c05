"""Real multi-callables of the synchronous world that tell the load reports in their answers."""

from __future__ import annotations

import weakref
from typing import Any

import grpc

from etcd_grpc.channel.reports import ReportReader
from etcd_grpc.channel.sync.outcome import SyncSubchannel

__all__ = ["reporting"]


def reporting(shape: str, inner: Any, subchannel: SyncSubchannel) -> Any:
    """``inner``, a multi-callable of ``shape`` at ``subchannel``, with its reports read."""
    reader = ReportReader(subchannel)
    return _Unary(inner, reader) if shape.endswith("_unary") else _Stream(inner, reader)


class _Unary:
    """One response."""

    __slots__ = ("_inner", "_reader")

    def __init__(self, inner: Any, reader: ReportReader) -> None:
        self._inner = inner
        self._reader = reader

    def __call__(self, *arguments: Any) -> Any:
        response, _ = self.with_call(*arguments)
        return response

    def with_call(self, *arguments: Any) -> tuple[Any, Any]:
        try:
            response, call = self._inner.with_call(*arguments)
        except grpc.RpcError as error:
            self._reader.read(error.trailing_metadata())
            raise
        self._reader.read(call.trailing_metadata())
        return response, call

    def future(self, *arguments: Any) -> Any:
        call = self._inner.future(*arguments)
        call.add_done_callback(lambda ended: self._reader.read(ended.trailing_metadata()))
        return call


class _Stream:
    """Many responses."""

    __slots__ = ("_inner", "_reader")

    def __init__(self, inner: Any, reader: ReportReader) -> None:
        self._inner = inner
        self._reader = reader

    def __call__(self, *arguments: Any) -> Any:
        call = self._inner(*arguments)
        held = weakref.ref(call)  # a stream that the application drops is cancelled

        def ended() -> None:
            if (known := held()) is not None:
                self._reader.read(known.trailing_metadata())

        call.add_callback(ended)
        return call
