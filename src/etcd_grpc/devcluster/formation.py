"""Brings a cluster's members up together, and down again.

There are two ways up.  A new cluster chooses its ports, and chooses again if another program was
faster.  One that comes back on a data directory has its ports in its data and must get those.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import re
import secrets
import shutil
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

from etcd_grpc.devcluster import gateway, ports
from etcd_grpc.devcluster.admin import Admin
from etcd_grpc.devcluster.binary import supports_flag
from etcd_grpc.devcluster.door import Access
from etcd_grpc.devcluster.member import Node, Settings
from etcd_grpc.devcluster.membership import (
    MemberEndedError,
    await_healthy,
    await_leader,
    await_serving_peers,
)
from etcd_grpc.devcluster.network import PeerNetwork
from etcd_grpc.devcluster.store import SavedCluster, SavedMember, Store
from etcd_grpc.errors import ConfigurationError, EtcdUnavailableError
from etcd_grpc.processes.children import Children

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["READY_TIMEOUT_S", "STOP_GRACE_S", "Formation", "Plan"]

READY_TIMEOUT_S = 30.0  # for a machine under load; three members usually need 0.3 s
STOP_GRACE_S = 10.0  # a leader that finds no heir gives up after 5 s and two election timeouts

_log = logging.getLogger("etcd_grpc.devcluster")

_DIRECTORY_PREFIX = "etcd-grpc-"
_LEADER_TIMEOUT_S = 1.0
_NO_FSYNC = "--unsafe-no-fsync"
_PORT_ATTEMPTS = 5
_PORT_TAKEN = "address already in use"
_CONTRADICTS_AFTER_KILL = re.compile(r"3\.5\.[0-2]$")  # etcd-io/etcd#13766


@dataclass(frozen=True, slots=True)
class Plan:
    """What was asked for; as :class:`~etcd_grpc.devcluster.Cluster` explains it."""

    size: int
    data_dir: Path | None
    client_ports: tuple[int, ...] | None
    settings: Settings
    partitionable: bool = False


class Formation:
    """The members of one start, from :meth:`form` to :meth:`dissolve`."""

    def __init__(self, plan: Plan) -> None:
        self.nodes: list[Node] = []
        self.settings = plan.settings
        tls = plan.settings.tls
        self.access = Access(None if tls is None else tls.context())
        self.admin = Admin(lambda: [node.door for node in self.together if node.answering], self.access)
        self.network: PeerNetwork | None = None
        self.dissolved = False
        self._plan = plan
        self._store: Store | None = None
        self._held: list[ports.Reservation] = []
        self.children = Children(f"etcd cluster of {plan.size}")

    @property
    def together(self) -> list[Node]:
        """The members that are not cut off from the majority."""
        return self.nodes if self.network is None else self.network.larger_side()

    def form(self) -> None:
        """Start all members and wait until each is healthy.

        Raises:
            ConfigurationError: the data directory or a port cannot be used.
            EtcdUnavailableError: a member did not come up.
        """
        directory = self._plan.data_dir
        if directory is None:
            return self._found(self.children.directory(_DIRECTORY_PREFIX))
        self._store = Store(directory)
        saved = self._store.load()
        if saved is None:
            return self._found(directory)
        return self._come_back(directory, saved)

    def dissolve(self) -> None:
        """End all members and give everything back.  Harmless when repeated or once cut short."""
        if self.dissolved or not self.children.owned:
            return
        if self._store is None:
            # Nobody will read this data again; an orderly end would only take a second.
            self.children.close(grace_s=0)
        else:
            self._stop_in_order(self._store)
            self.children.close(STOP_GRACE_S)
            self._store.close()
        self._disconnect()
        self.dissolved = True

    def _found(self, home: Path) -> None:
        for attempt in range(1, _PORT_ATTEMPTS + 1):
            self._place(home)
            try:
                self._launch(secrets.token_hex(8))
            except MemberEndedError as error:
                fixed = self._plan.client_ports is not None
                if fixed or attempt == _PORT_ATTEMPTS or _PORT_TAKEN not in str(error):
                    raise
                self._clear()
            else:
                return

    def _clear(self) -> None:
        """Undo a failed launch, for another on other ports."""
        self.children.stop_all([node.process for node in self.nodes if node.process], 0)
        self._disconnect()
        for node in self.nodes:
            shutil.rmtree(node.data_dir, ignore_errors=True)

    def _place(self, home: Path) -> None:
        """Give every member its ports."""
        size, chosen = self._plan.size, self._plan.client_ports
        if chosen is not None:
            self._held.append(ports.reserve(chosen))
        self._held.append(ports.reserve_free(2 * size if chosen is None else size))
        numbers = [port for held in self._held for port in held.ports]
        names = [f"etcd-{i}" for i in range(size)]
        self._connect(home, map(SavedMember, names, numbers[:size], numbers[size:]))

    def _connect(self, home: Path, members: Iterable[SavedMember]) -> None:
        """Make the members' places, and what lies between them."""
        apart = self._plan.partitionable
        if apart:
            self._held.append(ports.reserve_free(self._plan.size))
        listening = iter(self._held[-1].ports)
        self.nodes = [
            Node(
                member.name,
                member.client_port,
                member.peer_port,
                next(listening) if apart else member.peer_port,
                home,
                self.access,
            )
            for member in members
        ]
        if apart:
            self.network = PeerNetwork(self.nodes)

    def _come_back(self, home: Path, saved: SavedCluster) -> None:
        size, chosen = self._plan.size, self._plan.client_ports
        if len(saved.members) != size:
            raise ConfigurationError(
                f"{home} holds a cluster of {len(saved.members)}, not of {size}, members"
            )
        client_ports = tuple(member.client_port for member in saved.members)
        if chosen is not None and chosen != client_ports:
            raise ConfigurationError(
                f"the cluster in {home} has the client ports {client_ports}, not {chosen}"
            )
        peer_ports = tuple(member.peer_port for member in saved.members)
        self._held = [ports.reserve(client_ports + peer_ports)]
        self._connect(home, saved.members)
        self._launch(saved.token)
        if not saved.clean and size > 1:
            self._warn_of_contradiction(home)

    def _launch(self, token: str) -> None:
        flags = self._plan.settings.extra_args
        if self._store is None and supports_flag(self.settings.binary, _NO_FSYNC):
            # fsync saves data from a crash of the machine; a temporary directory's needs no saving.
            flags = (_NO_FSYNC, *flags)
        self.settings = dataclasses.replace(self.settings, token=token, extra_args=flags)
        if self._store is not None:
            self._save(self._store, clean=False)
        for node in self.nodes:
            node.start(self.children, self.settings, self.nodes, joining=False)
            # A member of a new cluster first asks the others about it, and gives one that listens,
            # but does not serve yet, a whole second.  One after another is faster.
            await_serving_peers(node, READY_TIMEOUT_S)
        await_healthy(self.nodes, READY_TIMEOUT_S)

    def _stop_in_order(self, store: Store) -> None:
        """The followers, then the leader.

        A leader that is told to stop first hands over to a follower, and waits for seconds if that
        follower is just stopping too (seen with etcd 3.4 and 3.5: 6 s).
        """
        started = {node.name: node.process for node in self.nodes if node.process is not None}
        last = None
        if started:
            with contextlib.suppress(EtcdUnavailableError):
                last = started.pop(await_leader(self.nodes, _LEADER_TIMEOUT_S).name)
        self.children.stop_all(list(started.values()), STOP_GRACE_S)
        if last is not None:
            self.children.stop(last, STOP_GRACE_S)
        ended = [node.process.returncode for node in self.nodes if node.process is not None]
        if ended:
            self._save(store, clean=-signal.SIGKILL not in ended)

    def _save(self, store: Store, *, clean: bool) -> None:
        members = tuple(SavedMember(node.name, node.client_port, node.peer_port) for node in self.nodes)
        store.save(SavedCluster(self.settings.token, members, clean))

    def _disconnect(self) -> None:
        if self.network is not None:
            self.network.close()
            self.network = None
        for held in self._held:
            held.release()
        self._held = []

    def _warn_of_contradiction(self, home: Path) -> None:
        version = gateway.status(self.nodes[0].door, STOP_GRACE_S).version
        if _CONTRADICTS_AFTER_KILL.match(version):
            _log.warning(
                "the cluster in %s was killed the last time; after that, members of etcd %s can "
                "contradict one another (etcd-io/etcd#13766)",
                home,
                version,
            )
