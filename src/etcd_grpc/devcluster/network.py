"""The network between the members of a cluster, which can be parted.

Every member announces the address of a breakable proxy of ours as its peer address, so all raft
traffic goes through us.  A partition silences the connections between the two sides, as lost packets
would, and leaves alone what clients do.

Whose connection it is decides the kernel's own bookkeeping: the client's port leads to a socket, and
the socket to the member's process.  So this needs Linux, and no privilege: network namespaces, the
other way, are forbidden in most containers of CI systems, and to their root too.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from etcd_grpc.devcluster.ports import LOOPBACK
from etcd_grpc.devcluster.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from etcd_grpc.devcluster.member import Node

__all__ = ["PeerNetwork"]

_SOCKETS = Path("/proc/net/tcp")


class PeerNetwork:
    """A proxy in front of the peer address of each of ``nodes``, until :meth:`close`.

    Raises:
        ConfigurationError: a peer port is taken.
    """

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._nodes = tuple(nodes)
        self._side: frozenset[int] = frozenset()
        with contextlib.ExitStack() as undo:
            self._proxies = [
                undo.enter_context(Proxy(f"{LOOPBACK}:{node.peer_listen_port}", port=node.peer_port))
                for node in nodes
            ]
            self._stack = undo.pop_all()

    def part(self, side: frozenset[int]) -> None:
        """Let no byte pass between the members with these indices and the others."""
        self._side = side
        for index, proxy in enumerate(self._proxies):
            others = [
                node for other, node in enumerate(self._nodes) if (other in side) != (index in side)
            ]
            proxy.stall(_belongs_to_one_of(others, proxy.port))

    def heal(self) -> None:
        """Let everything pass; what was held back arrives."""
        self._side = frozenset()
        for proxy in self._proxies:
            proxy.mend()

    def larger_side(self) -> list[Node]:
        """The members that can still agree: all of them where neither side has a majority."""
        sides: list[list[Node]] = [[], []]
        for index, node in enumerate(self._nodes):
            sides[index in self._side].append(node)
        larger = max(sides, key=len)
        return larger if 2 * len(larger) > len(self._nodes) else list(self._nodes)

    def close(self) -> None:
        """End the proxies.  Harmless when repeated."""
        self._stack.close()


def _belongs_to_one_of(nodes: Sequence[Node], to_port: int) -> Callable[[int], bool]:
    """Says of a connection to ``to_port``, by its own port, whether one of these processes has it."""

    def decide(port: int) -> bool:
        inode = _inode(port, to_port)
        pids = [node.process.pid for node in nodes if node.process is not None]
        return inode is not None and any(_holds(pid, f"socket:[{inode}]") for pid in pids)

    return decide


def _inode(port: int, to_port: int) -> str | None:
    """The inode of the loopback socket that is connected from ``port`` to ``to_port``."""
    ends = [f":{port:04X}", f":{to_port:04X}"]
    for line in _SOCKETS.read_text(encoding="ascii").splitlines()[1:]:
        fields = (
            line.split()
        )  # proc(5): sl local remote state queues timer retransmits uid timeout inode
        if [fields[1][-5:], fields[2][-5:]] == ends and fields[9] != "0":
            return fields[9]
    return None


def _holds(pid: int, wanted: str) -> bool:
    try:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed since it was listed
                if str(descriptor.readlink()) == wanted:
                    return True
    except FileNotFoundError:  # the process has ended
        return False
    return False
