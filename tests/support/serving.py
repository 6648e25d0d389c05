"""Servers of ``etcd_grpc.serve`` as processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

SERVER = Path(__file__).with_name("serve_server.py")


class ServeServer:
    """One server; ended with the ``with`` block at the latest.

    Args:
        services: What it serves.
        aio: In the asyncio world.
        deaf: No signal interrupts what its main thread waits for.
        wait: False: return before it is ready (``read_line`` says what becomes of it).
        settings: Of ``serve``.
    """

    def __init__(
        self, *services: str, aio: bool = False, deaf: bool = False, wait: bool = True, **settings: Any
    ) -> None:
        command = [sys.executable, str(SERVER), "--json", json.dumps(settings)]
        for service in services:
            command += ["--service", service]
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed on exit
        command += ["--aio"] * aio + ["--deaf"] * deaf
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._log, text=True)
        self.address = ""
        if wait:
            self.wait_ready()

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def wait_ready(self) -> None:
        line = self.read_line()
        assert line.startswith("ready "), f"the server did not start: {line}\n{self.log()}"
        self.address = line.split()[1]

    def read_line(self) -> str:
        """The next line of its output, "" at its end."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def log(self) -> str:
        """What it has written to standard error."""
        log = self._log.fileno()  # shared with it: to seek here would move where it writes
        return os.pread(log, os.fstat(log).st_size, 0).decode()

    def terminate(self) -> None:
        """SIGTERM; return at once."""
        self.process.send_signal(signal.SIGTERM)

    def wait(self, timeout_s: float = 30.0) -> int:
        """Its exit status."""
        return self.process.wait(timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        print(f"{self.address or 'a server'} wrote:\n{self.log()}")  # pytest shows it after a failure
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._log.close()
