"""The stream of requests of an asyncio call that may be sent again.

One task asks the application's iterator, for all attempts: an asynchronous generator keeps its context
and may hold what must not change hands between tasks.  It asks for the next request when the attempt
under way has sent all that came before.  ``write`` waits for the same moment.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import Any

from etcd_grpc.channel.replay import ReplayBuffer, Request

__all__ = ["Requests"]

Source = AsyncIterable[Any] | Iterable[Any] | None


class Requests:
    """What the application sends, for as many attempts as it takes.

    Args:
        source: Its iterator; None: it writes them.
        limit: How many bytes of them are kept.
    """

    def __init__(self, source: Source, limit: int) -> None:
        self.written = source is None
        self.ended = False  # there will be no more
        self._source = source
        self._buffer = ReplayBuffer(limit, contextlib.nullcontext())
        self._error: Exception | None = None  # that of the iterator
        self._asked = asyncio.Event()  # the attempt under way has sent all that is there
        self._changed = asyncio.Event()  # perhaps there is more for it
        self._asking: asyncio.Task[None] | None = None

    @property
    def replayable(self) -> bool:
        """Whether another attempt could send all that was sent."""
        return self._buffer.replayable

    def commit(self) -> None:
        """No attempt follows the current one."""
        self._buffer.commit()

    def attempt(self) -> RequestsOfAttempt:
        """All requests from the first one on, for the next attempt."""
        self._buffer.restart()
        return RequestsOfAttempt(self)

    async def write(self, message: Any) -> None:
        """Give one, and wait until the next one is asked for, or the call has ended."""
        self._buffer.append(message)
        self._asked.clear()
        self._changed.set()
        await self._asked.wait()

    def end(self) -> None:
        """There are no more."""
        self.ended = True
        self._changed.set()

    def close(self) -> None:
        """The call has ended."""
        self._asked.set()
        if self._asking is not None:
            self._asking.cancel()
        self.end()

    async def take(self, attempt: RequestsOfAttempt) -> Request:
        """The next request of ``attempt``, when there is one.

        Raises:
            StopAsyncIteration: There are no more, or the attempt is over.
            Exception: The application's iterator has raised it.
        """
        while not attempt.over:
            if (request := self._buffer.take(attempt.number)) is not None:
                attempt.number += 1
                return request
            if self._error is not None:
                raise self._error
            if self.ended:
                break
            self._changed.clear()
            self._ask()
            await self._changed.wait()
        raise StopAsyncIteration

    def wake(self) -> None:
        """An attempt is over: if it waits, it waits no longer."""
        self._changed.set()

    def _ask(self) -> None:
        """Have the application give the next one."""
        self._asked.set()
        if self._source is not None and self._asking is None:
            self._asking = asyncio.get_running_loop().create_task(self._read(self._source))

    async def _read(self, source: AsyncIterable[Any] | Iterable[Any]) -> None:
        try:
            if isinstance(source, AsyncIterable):
                async for message in source:
                    await self.write(message)
            else:
                for message in source:
                    await self.write(message)
        except Exception as error:  # noqa: BLE001 - the application's; the attempt under way raises it
            self._error = error
            self._buffer.spoil()
        self.end()


class RequestsOfAttempt(AsyncIterator[Request]):
    """What one attempt sends.

    Attributes:
        number: Of the next request.
        over: The attempt has ended.
    """

    def __init__(self, requests: Requests) -> None:
        self._requests = requests
        self.number = 0
        self.over = False

    async def __anext__(self) -> Request:
        return await self._requests.take(self)

    def end(self, _call: object = None) -> None:
        """The attempt has ended."""
        self.over = True
        self._requests.wake()
