"""A worker process: imports the application when told what to do, serves it when told to go.

It leaves in order when its parent says so, or is gone: the end of the socket between them says that,
however the parent ended.  A thread watches the socket; should leaving take longer than its grace
period, it ends the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

from etcd_grpc.errors import EtcdGrpcError
from etcd_grpc.server import aio, sync
from etcd_grpc.server.lifecycle import Event
from etcd_grpc.server.load_reporter import process_reporter
from etcd_grpc.server.workers.job import Job, unpacked
from etcd_grpc.server.workers.link import Counted, Failed, Go, Hurry, Leave, Loaded, Ready

__all__ = ["main"]

_COUNT_EVERY_S = 1.0
_OVERTIME_S = 3.0  # for what should have ended: an orphan's draining, or threads of the application


def main(descriptor: int) -> None:
    """Run as a worker whose parent is at the other end of the socket ``descriptor``."""
    with Connection(descriptor) as link:
        try:
            order = link.recv()
            try:
                job = unpacked(order.preparation, order.job)
                if job.setup is not None:
                    job.setup()
                work = _Work(link, job)
            except EtcdGrpcError as error:
                link.send(Failed(type(error).__name__, str(error)))
                sys.exit(1)
            link.send(Loaded())
            told = link.recv()
        except (EOFError, OSError):  # the parent has gone
            return
        status = work.run() if isinstance(told, Go) else 0
    _end(status)


def _end(status: int) -> NoReturn:
    """End the process, at once if calls outlast the grace period, else soon, with whatever threads.

    The interpreter waits for threads of the application for as long as these please, and there may
    be no parent any more that would lose patience.
    """
    late = any(thread.name.startswith("etcd-grpc-handler") for thread in threading.enumerate())

    def end() -> None:
        time.sleep(0 if late else _OVERTIME_S)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(status)

    threading.Thread(target=end, name="etcd-grpc-worker-end", daemon=True).start()
    sys.exit(status)


class _Work:
    """The serving, and the conversation with the parent."""

    def __init__(self, link: Connection[Any, Any], job: Job) -> None:
        self._link = link
        self._job = job
        self._add, self._asyncio = job.load()
        self._life: aio.Lifecycle | sync.Lifecycle | None = None
        self._sending = threading.Lock()  # guards the link: one message at a time
        self._ended = threading.Event()

    def run(self) -> int:
        """Serve until the end; returns the exit status."""
        watch = threading.Thread(target=self._watch, name="etcd-grpc-worker", daemon=True)
        watch.start()
        try:
            if self._asyncio:
                asyncio.run(aio.run(self._add, self._job.options, self._ready))
            else:
                sync.run(self._add, self._job.options, self._ready)
        except EtcdGrpcError as error:
            self._send(Failed(type(error).__name__, str(error)))
            return 1
        finally:
            self._send(Counted(process_reporter().counts))
            self._ended.set()
        return 0

    def _ready(self, life: Any) -> None:
        if self._job.on_ready is not None:
            self._job.on_ready(life)
        self._life = life
        instance = life.instances[0]
        self._send(Ready(instance.address, instance.id))

    def _send(self, message: object) -> None:
        # A parent that is gone is noticed by the thread that reads.
        with self._sending, contextlib.suppress(OSError):
            self._link.send(message)

    # The thread.

    def _watch(self) -> None:
        counted = None
        try:
            while not self._ended.is_set():
                if self._link.poll(_COUNT_EVERY_S):
                    self._obey(self._link.recv())
                counts = process_reporter().counts
                if counts != counted:
                    counted = counts
                    self._send(Counted(counts))
        except (EOFError, OSError):
            if not self._ended.is_set():
                self._orphaned()

    def _obey(self, message: object) -> None:
        life = self._life
        if life is not None and isinstance(message, (Leave, Hurry)):
            life._core.post(Event.STOP if isinstance(message, Leave) else Event.HURRY)

    def _orphaned(self) -> None:
        # Nobody reads any more what we write, and a call that writes must not fail for that.
        with Path(os.devnull).open("wb") as nowhere:
            for standard in (1, 2):
                os.dup2(nowhere.fileno(), standard)
        if self._life is not None:
            self._obey(Leave())
        else:
            os.kill(os.getpid(), signal.SIGTERM)
        deadline = time.monotonic() + self._job.options.life.grace_s + _OVERTIME_S
        while time.monotonic() < deadline:
            if self._ended.wait(_COUNT_EVERY_S):
                return
        os._exit(1)
