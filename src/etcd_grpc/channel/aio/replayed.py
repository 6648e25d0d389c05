"""Asyncio calls with many requests that can be sent again, as the retry policy says.

The requests are kept until the call is committed (``replay.py``), so the attempts read them from there,
also where the application writes them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any

import grpc

from etcd_grpc.channel.aio.calls import Failed, rpc_error
from etcd_grpc.channel.aio.repeated import RepeatedCall, ResponseStreamCall, error_of
from etcd_grpc.channel.aio.requests import Requests

__all__ = ["ReplayedStreamStreamCall", "ReplayedStreamUnaryCall"]

# As a plain call says it.
_MIXED = "The iterator and read/write APIs may not be mixed on a single RPC."
_FINISHED = "RPC already finished."
_HALF_CLOSED = 'RPC is half closed after calling "done_writing".'
# What a plain call says, with INTERNAL, if it was writing at the moment at which its stream ended: then
# the status that ended it is lost in about one of fifty cases.
_STATUS_LOST = "Internal error from Core"


class _ReplayedCall(RepeatedCall):
    """Many requests.

    Args:
        requests: Which; ``start`` takes them from there.
        others: As ``RepeatedCall``.
    """

    def __init__(self, requests: Requests, *others: Any) -> None:
        self._requests = requests
        super().__init__(*others)

    def _again(self, error: grpc.aio.AioRpcError) -> bool:
        if error.code() is grpc.StatusCode.INTERNAL and error.details() == _STATUS_LOST:
            # Most likely the connection broke.  If not, the next attempt tells what it was.
            error = rpc_error(grpc.StatusCode.UNAVAILABLE, _STATUS_LOST)
        return self._requests.replayable and super()._again(error)

    def _finish(self) -> None:
        self._requests.close()
        super()._finish()

    @property
    def _done_writing_flag(self) -> bool:
        """gRPC's intercepted calls ask for it."""
        return self._requests.ended

    async def write(self, request: Any) -> None:
        self._must_be_written()
        if self.done():
            raise asyncio.InvalidStateError(_FINISHED)
        if self._requests.ended:
            raise asyncio.InvalidStateError(_HALF_CLOSED)
        try:
            await self._requests.write(request)
        except asyncio.CancelledError:
            self.cancel()
            raise
        if self.done():
            await self._raise_failure()

    async def done_writing(self) -> None:
        self._must_be_written()
        self._requests.end()

    def _must_be_written(self) -> None:
        if not self._requests.written:
            raise grpc.aio.UsageError(_MIXED)

    async def _raise_failure(self) -> None:
        """Raise as the call has ended; if that is well, do nothing."""
        inner = await self._settled()
        if isinstance(inner, Failed):
            raise inner.error
        if inner.cancelled():
            raise asyncio.CancelledError
        if (code := await inner.code()) is not grpc.StatusCode.OK:
            raise error_of(inner, code)


class ReplayedStreamUnaryCall(_ReplayedCall, grpc.aio.StreamUnaryCall):  # type: ignore[type-arg]
    """Many requests, one response."""

    def __await__(self) -> Generator[Any, None, Any]:
        return self._response().__await__()

    async def _response(self) -> Any:
        while True:
            inner = await self._claim()
            try:
                return await inner
            except grpc.aio.AioRpcError as error:
                if not self._conclude(inner, error):
                    raise


class ReplayedStreamStreamCall(_ReplayedCall, ResponseStreamCall, grpc.aio.StreamStreamCall):  # type: ignore[type-arg]
    """Many requests, many responses."""

    def _show(self) -> None:
        super()._show()
        self._requests.commit()
