"""A TCP forwarder that counts what a client sends: what is compressed shows in nothing else."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self


class Tap:
    """Listens on a port of its own and forwards to ``address``."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self.sent = 0
        self._lock = threading.Lock()  # guards sent
        tap = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with socket.create_connection((host, int(port))) as server:
                    back = threading.Thread(target=_copy, args=(server, self.request), daemon=True)
                    back.start()
                    _copy(self.request, server, tap.count)
                    back.join()

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self.address = f"127.0.0.1:{self._server.server_address[1]}"

    def count(self, data: bytes) -> None:
        """The client has sent this."""
        with self._lock:
            self.sent += len(data)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _copy(
    source: socket.socket, sink: socket.socket, count: Callable[[bytes], None] | None = None
) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            if count is not None:
                count(data)
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
