"""Real multi-callables of the asyncio world that tell the load reports in their answers."""

from __future__ import annotations

from typing import Any

from etcd_grpc.channel.aio.calls import AioSubchannel, at_once
from etcd_grpc.channel.reports import ReportReader

__all__ = ["reporting"]


def reporting(shape: str, inner: Any, subchannel: AioSubchannel) -> Any:
    """``inner``, a multi-callable at ``subchannel``, with its reports read."""
    del shape
    reader = ReportReader(subchannel)

    def ended(call: Any) -> None:
        reader.read(at_once(call.trailing_metadata()))

    def begin(*arguments: Any, **named: Any) -> Any:
        call = inner(*arguments, **named)
        call.add_done_callback(ended)
        return call

    return begin
