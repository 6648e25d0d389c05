"""``etcd-grpc register`` as a process, with the programs beside which it runs."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.calls import free_port
from tests.support.etcd import RawEtcd
from tests.support.waiting import wait_until

from etcd_grpc.processes import _janitor

COMMAND = str(Path(sys.executable).with_name("etcd-grpc"))
PORT_PROGRAM = [sys.executable, str(Path(__file__).with_name("port_program.py"))]
HEALTH_PROGRAM = [sys.executable, str(Path(__file__).with_name("health_program.py"))]

PATIENCE_S = 30.0


def runs(pid: int) -> bool:
    """Whether the process is there, and no zombie."""
    return _janitor.start_time(pid) != ""


class Sidecar:
    """A sidecar for ``service``; killed, with its program, when the ``with`` block ends.

    Args:
        service: What the program is registered under.
        etcd: etcd's endpoint.
        folder: Where what it says is kept.
        options: Options in addition to ``--port``.
        program: The program; its port is appended.  None: it runs already.
        arguments: What follows the port.
        port: The program's port; a free one by default.
        environment: Variables in addition to ours.
        through: A command that executes the one which follows it.
    """

    def __init__(
        self,
        service: str,
        etcd: str,
        folder: Path,
        options: list[str],
        program: list[str] | None,
        arguments: list[str],
        *,
        port: int | None = None,
        environment: dict[str, str] | None = None,
        through: Sequence[str] = (),
    ) -> None:
        self.port = free_port() if port is None else port
        self.service = service
        host = "[::1]" if "::1" in options else "127.0.0.1"
        self.address = f"{host}:{self.port}"
        self._out, self._err = folder / f"{self.port}.out", folder / f"{self.port}.err"
        command = [
            *through,
            COMMAND,
            "register",
            service,
            "--port",
            str(self.port),
            "--interval",
            "0.1",
            *options,
        ]
        if program is not None:
            command += ["--", *program, str(self.port), *arguments]
        strange = ("ETCDCTL_", "ETCD_GRPC_", "POD_IP")
        env = {name: value for name, value in os.environ.items() if not name.startswith(strange)}
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
                env={**env, "ETCDCTL_ENDPOINTS": etcd, **(environment or {})},
            )

    @property
    def out(self) -> str:
        """What the program has said."""
        return self._out.read_text()

    @property
    def err(self) -> str:
        """What the sidecar, or the program on its standard error, has said."""
        return self._err.read_text()

    @property
    def program(self) -> int:
        """The program's pid, once it runs."""
        return int(self.said(r"^started (\d+)$")[1])

    def said(self, pattern: str) -> re.Match[str]:
        """Wait until the program has said something."""

        def found() -> re.Match[str] | None:
            assert self.process.poll() is None or re.search(pattern, self.out, re.MULTILINE), self.err
            return re.search(pattern, self.out, re.MULTILINE)

        return wait_until(found, f"the program says {pattern}", PATIENCE_S)

    def entry(self, raw: RawEtcd) -> dict[str, Any] | None:
        """What is registered, if anything is."""
        found = raw.get(f"{self.service}/")
        values = [json.loads(kv.value) for kv in found.values()]
        (mine,) = [value for value in values if value["Addr"] == self.address] or [None]
        return mine

    def status(self, raw: RawEtcd) -> str:
        """The status of its entry; "" if it has none."""
        entry = self.entry(raw)
        return "" if entry is None else str(entry["Metadata"]["status"])

    def registered(self, raw: RawEtcd) -> dict[str, Any]:
        """Wait until it is registered; return its entry."""

        def stands() -> dict[str, Any] | None:
            assert self.process.poll() is None, self.err
            return self.entry(raw)

        return wait_until(stands, "registered", PATIENCE_S)

    def withdrawn(self, raw: RawEtcd) -> None:
        """Wait until it is not."""
        wait_until(lambda: self.entry(raw) is None, "withdrawn", PATIENCE_S)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self, timeout_s: float = PATIENCE_S) -> int:
        """Wait for its end."""
        return self.process.wait(timeout_s)

    def terminate(self) -> int:
        self.signal(signal.SIGTERM)
        return self.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        if error is not None:
            print(self.out, self.err, sep="\n")
