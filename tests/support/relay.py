"""A TCP relay that a test can break: everything passes, until all its connections are reset."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from types import TracebackType
from typing import Self

__all__ = ["Relay"]

_CHUNK = 64 * 1024
# Close at once, with a reset instead of an orderly end, whatever is still to be sent.
_RESET = struct.pack("ii", 1, 0)


class Relay:
    """Stands between clients and ``target`` (``host:port``), on a thread of its own.

    Attributes:
        address: ``host:port`` for the clients.
        accepted: How many connections it has taken so far.
    """

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._loop = asyncio.new_event_loop()
        self._open: set[asyncio.StreamWriter] = set()
        self.accepted = 0
        self._server = self._loop.run_until_complete(asyncio.start_server(self._relay, "127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay")
        self._thread.start()

    def reset(self) -> None:
        """Reset all connections, towards both sides; new ones are welcome."""
        asyncio.run_coroutine_threadsafe(self._reset(), self._loop).result()

    def close(self) -> None:
        """Reset all connections and take no more."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # On the relay's loop.

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        try:
            upstream_reader, upstream = await asyncio.open_connection(*self._target)
        except OSError:  # the target is down: so are we, for this client
            _abort(writer)
            return
        both = {writer, upstream}
        self._open |= both
        ways = [_pump(reader, upstream), _pump(upstream_reader, writer)]
        await asyncio.wait(
            [asyncio.ensure_future(way) for way in ways], return_when=asyncio.FIRST_COMPLETED
        )
        for end in both:
            end.close()
        self._open -= both

    async def _reset(self) -> None:
        for writer in self._open:
            _abort(writer)

    async def _end(self) -> None:
        self._server.close()
        await self._reset()
        pending = asyncio.all_tasks() - {asyncio.current_task()}
        if pending:
            await asyncio.wait(pending, timeout=5)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):  # which ends both ways
        while chunk := await reader.read(_CHUNK):
            writer.write(chunk)
            await writer.drain()


def _abort(writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
