"""One worker process as its parent holds it: the process, the socket to it, and what it writes."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from etcd_grpc.server.load_meter import Counts
from etcd_grpc.server.workers.fleet import Lines
from etcd_grpc.server.workers.link import Failed, FromParent, FromWorker, Order

__all__ = ["PLACE_VARIABLE", "Child"]

PLACE_VARIABLE = "ETCD_GRPC_WORKER"  # tells the application which of the workers it is, from 0

_SOURCE = str(Path(__file__).parents[2])
_PROGRAM = (
    "import sys; sys.path.insert(0, {source!r}); "
    "from etcd_grpc.server.workers.worker import main; main({descriptor})"
)
_CHUNK = 1 << 16


class Child:
    """A worker process, started; it leads a session of its own, so that the terminal's signals reach
    only the parent, which passes them on in order.

    Args:
        key: Its number among all processes there ever were.
        order: What it is told first.

    Raises:
        OSError: The system cannot start another process.
    """

    def __init__(self, key: int, order: Order) -> None:
        self.key = key
        self.place = order.place
        self.address = ""
        self.counts = Counts(0, 0, 0)
        self.failure: Failed | None = None
        self.silent_since_s: float | None = None  # since its end of the socket has closed
        self.link: Connection[Any, Any]
        self.link, theirs = multiprocessing.Pipe()
        with theirs:
            program = _PROGRAM.format(source=_SOURCE, descriptor=theirs.fileno())
            self._process = subprocess.Popen(
                [sys.executable, "-c", program, "etcd-grpc-worker", str(order.place)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1", PLACE_VARIABLE: str(order.place)},
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        assert self._process.stdout is not None
        self.output = self._process.stdout
        os.set_blocking(self.output.fileno(), False)
        self._lines = Lines()
        self.send(order)

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def send(self, message: FromParent) -> None:
        """Tell it something; one that has ended does not hear it."""
        with contextlib.suppress(OSError):
            self.link.send(message)

    def signal(self, number: int) -> None:
        """Send a signal; nothing if it has ended."""
        self._process.send_signal(number)

    def received(self) -> Iterator[FromWorker]:
        """What it has said and nobody has read.

        Raises:
            EOFError: There will be no more.
        """
        try:
            while self.link.poll(0):
                yield self.link.recv()
        except OSError:  # reset: it ended with something unread
            raise EOFError from None

    def written(self) -> Iterator[str]:
        """The complete lines that it has written and nobody has read.

        Raises:
            EOFError: There will be no more.
        """
        while True:
            try:
                data = os.read(self.output.fileno(), _CHUNK)
            except BlockingIOError:
                return
            if not data:
                raise EOFError
            yield from self._lines.feed(data)

    def unfinished(self) -> Iterator[str]:
        """What it wrote last, without an end of line."""
        return self._lines.end()

    def poll(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        return self._process.poll()

    def close(self) -> None:
        """End it at once if it runs, and release what it holds."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self.link.close()
        self.output.close()
