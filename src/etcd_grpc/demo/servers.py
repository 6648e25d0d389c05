"""The example's servers, as processes: started, told to go, killed.

They are children that cannot outlive us, see ``processes/children.py``.
"""

from __future__ import annotations

import enum
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from etcd_grpc.demo.waiting import DemoError, Interrupts, wait_until
from etcd_grpc.processes.children import Children

__all__ = ["Fleet", "Server", "State"]

_START_TIMEOUT_S = 30.0  # half a second, unless the machine is busy
_STOP_TIMEOUT_S = 10.0
_TAIL_LINES = 12
_SERVING = re.compile(r"^serving on port \d+, registered as (\S+)$", re.MULTILINE)


class State(enum.StrEnum):
    """Where a server is in its life."""

    STARTING = "starting"
    SERVING = "serving"
    STOPPING = "stopping (SIGTERM)"
    STOPPED = "stopped"
    CRASHED = "killed -9"


@dataclass(slots=True, eq=False)
class Server:
    """One server process.  ``address`` is what it told etcd, empty before that."""

    process: subprocess.Popen[bytes]
    log: Path
    address: str = ""
    state: State = State.STARTING

    def tail(self) -> str:
        """The last lines that it printed."""
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-_TAIL_LINES:]) or "(it said nothing)"


class Fleet:
    """All servers of the run.

    Args:
        folder: Where server.py and the generated code are.
        etcd: The variables by which a server finds etcd.
        ttl_s: How long etcd keeps a crashed server, in seconds.
        children: Who starts processes.
        interrupts: Asked in every wait.
    """

    def __init__(
        self,
        folder: Path,
        etcd: Mapping[str, str],
        ttl_s: int,
        children: Children,
        interrupts: Interrupts,
    ) -> None:
        self._folder = folder
        self._environment = _environment(etcd)
        self._ttl_s = ttl_s
        self._children = children
        self._interrupts = interrupts
        self.servers: list[Server] = []

    @property
    def serving(self) -> list[Server]:
        """Those that must take part, the oldest first."""
        return [server for server in self.servers if server.state is State.SERVING]

    def start(self, count: int) -> list[Server]:
        """Start ``count`` servers at the same time; return when all are registered.

        Raises:
            DemoError: One ended, or was not registered in time.
        """
        started = [self._spawn() for _ in range(count)]
        for server in started:
            wait_until(
                lambda server=server: self._is_serving(server),  # type: ignore[misc]
                _START_TIMEOUT_S,
                "a server's registration",
                self._interrupts,
            )
        return started

    def stop(self, server: Server) -> None:
        """SIGTERM; return when it has withdrawn and ended.

        Raises:
            DemoError: It did not end in time, or not with status 0.
        """
        server.state = State.STOPPING
        server.process.terminate()
        wait_until(
            lambda: server.process.poll() is not None,
            _STOP_TIMEOUT_S,
            f"the end of {server.address} after SIGTERM",
            self._interrupts,
        )
        status = self._children.stop(server.process)
        server.state = State.STOPPED
        if status != 0:
            raise DemoError(f"{server.address} ended with status {status}:\n{server.tail()}")

    def crash(self, server: Server) -> None:
        """SIGKILL; return when it is gone."""
        server.state = State.CRASHED
        self._children.stop(server.process, grace_s=0)

    def stop_all(self, grace_s: float) -> None:
        """SIGTERM to all that run, at the same time; SIGKILL after ``grace_s`` seconds."""
        running = [server for server in self.servers if server.process.poll() is None]
        for server in running:
            server.state = State.STOPPING
        self._children.stop_all([server.process for server in running], grace_s)
        for server in running:
            server.state = State.STOPPED

    def _spawn(self) -> Server:
        path = self._folder / f"server-{len(self.servers)}.log"
        with path.open("wb") as log:
            process = self._children.spawn(
                [sys.executable, "server.py", "--port", "0", "--ttl", str(self._ttl_s)],
                cwd=self._folder,
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        server = Server(process, path)
        self.servers.append(server)
        return server

    def _is_serving(self, server: Server) -> bool:
        ended = server.process.poll() is not None
        found = _SERVING.search(server.log.read_text(errors="replace"))
        if found is None and ended:
            raise DemoError(f"a server ended before it was registered:\n{server.tail()}")
        if found is not None:
            server.address, server.state = found[1], State.SERVING
        return found is not None


def _environment(etcd: Mapping[str, str]) -> dict[str, str]:
    """Ours, less what would send a server to another etcd, or its clients elsewhere."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("ETCDCTL_", "ETCD_GRPC_")) and name != "PYTHONSAFEPATH"
    }
    return {**kept, **etcd}
