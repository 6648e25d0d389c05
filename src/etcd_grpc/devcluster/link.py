"""One connection through the proxy: a client, a server, and what lies between them.

Each direction has a reader and a writer with a bounded queue between them.  The reader goes on while
the link is silent, so that a client that gives up is noticed; the queue's bound is the back-pressure.
Everything that is read carries the time at which it may be delivered, hence a delay costs no
throughput.  An orderly end (FIN) of one direction is passed on after what was sent before it, and
the other direction lives on; any error resets both sides.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any, TypeAlias

__all__ = ["Link", "Target"]

_CHUNK = 64 * 1024
_QUEUED_BYTES = 4 * 1024 * 1024
_CHUNK_OVERHEAD = 256  # what a chunk of one byte occupies
_LINGER_NOT = struct.pack("ii", 1, 0)  # close() sends a reset

Target: TypeAlias = "tuple[socket.AddressFamily, tuple[Any, ...]]"


class _Lane:
    """One direction: what was read, with the times at which it is due; an empty chunk is the end.

    Bounded in bytes, not in chunks, or many small messages under a delay would be slowed down.
    """

    def __init__(self) -> None:
        self._queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        self._queued_bytes = 0
        self._room = asyncio.Event()
        self._room.set()

    async def put(self, due: float, data: bytes) -> None:
        """Add a chunk, as soon as there is room."""
        await self._room.wait()
        self._count(len(data) + _CHUNK_OVERHEAD)
        self._queue.put_nowait((due, data))

    async def get(self) -> tuple[float, bytes]:
        """The oldest chunk, as soon as there is one."""
        due, data = await self._queue.get()
        self._count(-len(data) - _CHUNK_OVERHEAD)
        return due, data

    def _count(self, more: int) -> None:
        self._queued_bytes += more
        if self._queued_bytes < _QUEUED_BYTES:
            self._room.set()
        else:
            self._room.clear()


class Link:
    """Forwards between ``client``, a connected socket that it owns, and ``target``.

    ``port`` is the client's, ``delay_s`` what every byte waits in each direction.  All methods belong
    to the event loop that runs :meth:`run`; cancelling that resets both sides.
    """

    def __init__(
        self, client: socket.socket, target: Target, port: int, *, delay_s: float = 0.0
    ) -> None:
        self.port = port
        self.delay_s = delay_s
        self.client_open = True
        self._client = client
        self._target = target
        self._server: socket.socket | None = None
        self._flowing = asyncio.Event()
        self._lost = asyncio.Event()
        self._answering = False

    def silence(self, silent: bool) -> None:
        """Forward nothing from now on, or forward again."""
        if silent:
            self._flowing.clear()
        else:
            self._flowing.set()

    def lose_server(self) -> None:
        """The server's side is gone, for ever; the client is not told."""
        self._answering = False
        self._lost.set()

    def answer_with_reset(self) -> None:
        """If the server's side is gone: tell the client so when it sends something."""
        self._answering = True

    async def run(self) -> None:
        """Forward until both directions have ended, or one has failed."""
        forwarding = asyncio.create_task(self._forward())
        lost = asyncio.create_task(self._lost.wait())
        orderly = False
        try:
            await asyncio.wait([forwarding, lost], return_when=asyncio.FIRST_COMPLETED)
            if lost.done():
                await _ended(forwarding)
                self._close_server(orderly=False)
                self.client_open = True
                await self._swallow()
            else:
                orderly = forwarding.result()
        finally:
            await _ended(forwarding, lost)
            self.close(orderly=orderly)

    def close(self, *, orderly: bool = False) -> None:
        """Give up both sockets, where :meth:`run` has not done so; harmless when repeated."""
        self.client_open = False
        self._close_server(orderly=orderly)
        _close(self._client, orderly=orderly)

    async def _forward(self) -> bool:
        """Whether it ended in order."""
        orderly = True
        try:
            await self._both_ways()
        except* OSError:  # a reset by either side, or nobody listens: the parties see a reset
            orderly = False
        return orderly

    async def _both_ways(self) -> None:
        up, down = _Lane(), _Lane()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._read(self._client, up))
            await self._flowing.wait()
            server = await self._connect()
            tasks.create_task(self._write(server, up))
            tasks.create_task(self._read(server, down))
            tasks.create_task(self._write(self._client, down))

    async def _connect(self) -> socket.socket:
        family, address = self._target
        self._server = server = socket.socket(family, socket.SOCK_STREAM)
        server.setblocking(False)
        await asyncio.get_running_loop().sock_connect(server, address)
        for sock in (server, self._client):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return server

    async def _read(self, source: socket.socket, lane: _Lane) -> None:
        loop = asyncio.get_running_loop()
        try:
            while data := await loop.sock_recv(source, _CHUNK):
                await lane.put(loop.time() + self.delay_s, data)
        finally:
            if source is self._client:
                self.client_open = False
        await lane.put(loop.time() + self.delay_s, b"")

    async def _write(self, sink: socket.socket, lane: _Lane) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, data = await lane.get()
            if due > loop.time():
                await asyncio.sleep(due - loop.time())
            await self._flowing.wait()
            if not data:
                return sink.shutdown(socket.SHUT_WR)
            await loop.sock_sendall(sink, data)

    async def _swallow(self) -> None:
        """Take what the client sends, as the network did, until it closes or may be answered."""
        loop = asyncio.get_running_loop()
        try:
            while await loop.sock_recv(self._client, _CHUNK):
                if self._answering:
                    return
        except OSError:  # the client's own reset
            return

    def _close_server(self, *, orderly: bool) -> None:
        if self._server is not None:
            _close(self._server, orderly=orderly)
            self._server = None


def _close(sock: socket.socket, *, orderly: bool) -> None:
    if not orderly and sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
    sock.close()


async def _ended(*tasks: asyncio.Task[bool]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
