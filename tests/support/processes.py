"""Echo servers as processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

SERVER = Path(__file__).with_name("echo_server.py")


class EchoServer:
    """One echo server; ended with the ``with`` block at the latest."""

    def __init__(
        self,
        *,
        register: str = "",
        identity: str = "",
        etcd: str = "",
        host: str = "127.0.0.1",
        port: int = 0,
        ttl_s: int = 15,
        tls: Path | None = None,
        mutual: bool = False,
    ) -> None:
        command = [
            sys.executable,
            str(SERVER),
            "--host",
            host,
            "--port",
            str(port),
            "--ttl",
            str(ttl_s),
        ]
        if register:
            command += ["--register", register]
        if identity:
            command += ["--id", identity]
        if tls is not None:
            command += ["--tls", str(tls), *(["--mutual"] if mutual else [])]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "ETCDCTL_ENDPOINTS": etcd},
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline().split()
        assert line[:1] == ["ready"], f"the echo server did not start: {line}"
        self.address = line[1]

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def terminate(self) -> int:
        """SIGTERM, and wait for its end."""
        self.process.terminate()
        return self.process.wait(timeout=20)

    def kill(self) -> None:
        """SIGKILL, and wait for its end."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(timeout=10)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.kill()
        if self.process.stdout is not None:
            self.process.stdout.close()
