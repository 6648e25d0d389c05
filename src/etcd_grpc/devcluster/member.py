"""One etcd member as a process: its command line, its files, its state."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from etcd_grpc.devcluster.door import Access, Door
from etcd_grpc.devcluster.ports import LOOPBACK

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Sequence
    from pathlib import Path

    from etcd_grpc.devcluster.tls import TlsFiles
    from etcd_grpc.processes.children import Children

__all__ = ["Member", "Node", "Settings"]

_LOG_LINES = 12
_LOG_LINE_LENGTH = 300


@dataclass(frozen=True, slots=True)
class Member:
    """What can be said of a member at one moment.

    Addresses are ``host:port``.  ``pid`` is ``None`` while the member is not ``alive``; ``paused``
    means stopped by SIGSTOP: alive, and deaf.
    """

    name: str
    client_address: str
    peer_address: str
    pid: int | None
    alive: bool
    paused: bool


@dataclass(frozen=True, slots=True)
class Settings:
    """What all members of a cluster have in common."""

    binary: Path
    heartbeat_ms: int
    election_ms: int
    extra_args: tuple[str, ...]
    tls: TlsFiles | None = None
    token: str = ""  # keeps clusters apart that come to the same ports


@dataclass(slots=True)
class Node:
    """A member's place in the cluster, which it keeps while processes come and go.

    ``peer_port`` is where other members look for it, ``peer_listen_port`` where it listens: another
    port if there is a proxy between the two.
    """

    name: str
    client_port: int
    peer_port: int
    peer_listen_port: int
    home: Path
    access: Access
    process: subprocess.Popen[bytes] | None = None
    paused: bool = False
    _log_start: int = 0

    @property
    def client_address(self) -> str:
        return f"{LOOPBACK}:{self.client_port}"

    @property
    def client_url(self) -> str:
        return f"{'http' if self.access.tls is None else 'https'}://{self.client_address}"

    @property
    def door(self) -> Door:
        """Where to ask it as a client."""
        return Door(self.client_address, self.access)

    @property
    def peer_door(self) -> Door:
        """Where to ask it as another member."""
        return Door(f"{LOOPBACK}:{self.peer_listen_port}", Access())

    @property
    def peer_address(self) -> str:
        return f"{LOOPBACK}:{self.peer_port}"

    @property
    def peer_url(self) -> str:
        return f"http://{self.peer_address}"

    @property
    def data_dir(self) -> Path:
        return self.home / self.name

    @property
    def log_file(self) -> Path:
        return self.home / f"{self.name}.log"

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def answering(self) -> bool:
        """Whether it makes sense to ask it anything."""
        return self.alive and not self.paused

    def describe(self) -> Member:
        """The public view of this moment."""
        alive = self.alive
        return Member(
            name=self.name,
            client_address=self.client_address,
            peer_address=self.peer_address,
            pid=self.process.pid if self.process is not None and alive else None,
            alive=alive,
            paused=alive and self.paused,
        )

    def start(
        self,
        children: Children,
        settings: Settings,
        nodes: Sequence[Node],
        *,
        joining: bool,
    ) -> None:
        """Start the process.  ``joining``: it has no data and the cluster of ``nodes`` exists."""
        with self.log_file.open("ab") as log:
            self._log_start = log.tell()
            self.process = children.spawn(
                self._command(settings, nodes, joining=joining), env=_environment(), stderr=log
            )
        self.paused = False

    def _command(self, settings: Settings, nodes: Sequence[Node], *, joining: bool) -> list[str]:
        flags = {
            "name": self.name,
            "data-dir": str(self.data_dir),
            "listen-client-urls": self.client_url,
            "advertise-client-urls": self.client_url,
            "listen-peer-urls": f"http://{LOOPBACK}:{self.peer_listen_port}",
            "initial-advertise-peer-urls": self.peer_url,
            "initial-cluster": ",".join(f"{node.name}={node.peer_url}" for node in nodes),
            "initial-cluster-state": "existing" if joining else "new",
            "initial-cluster-token": settings.token,
            "heartbeat-interval": str(settings.heartbeat_ms),
            "election-timeout": str(settings.election_ms),
            "logger": "zap",  # what 3.4 does not take by default, and 3.6 takes only
            # Else no member can be added during the first 5 s of all connections (HealthInterval).
            "strict-reconfig-check": "false",
        }
        if settings.tls is not None:
            flags |= settings.tls.flags()
        arguments = [f"--{name}={value}" for name, value in flags.items()]
        return [str(settings.binary), *arguments, *settings.extra_args]

    def log_excerpt(self) -> str:
        """What the present process (or the last one) wrote first and last to its log.

        First, because etcd answers a wrong flag with one line and then a page of help.
        """
        try:
            with self.log_file.open("rb") as log:
                log.seek(self._log_start)
                text = log.read().decode("utf-8", "replace")
        except OSError as error:
            return f"(no log: {error})"
        lines = [line[:_LOG_LINE_LENGTH] for line in text.splitlines()]
        if len(lines) > _LOG_LINES:
            lines = [lines[0], "...", *lines[-_LOG_LINES:]]
        return "\n".join(lines)


def _environment() -> dict[str, str]:
    """Ours, less what would configure etcd: it reads every flag from ``ETCD_...`` as well, and a
    variable that contradicts a flag is fatal.
    """
    kept = "ETCD_UNSUPPORTED_ARCH"
    return {
        name: value
        for name, value in os.environ.items()
        if name == kept or not name.startswith("ETCD_")
    }
