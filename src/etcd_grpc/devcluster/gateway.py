"""What a local cluster asks its members, over etcd's HTTP and JSON gateway.

Health, leader and membership are all it needs, and it must not need the rest of this package, which
is tested against it.  ``http.client`` and not ``urllib.request``: it never looks for a proxy.
"""

from __future__ import annotations

import http.client
import json
from typing import TypeVar

import msgspec

from etcd_grpc.errors import EtcdError, EtcdUnavailableError

__all__ = [
    "Peer",
    "Status",
    "add_member",
    "is_healthy",
    "list_members",
    "remove_member",
    "serves_peers",
    "status",
    "transfer_leadership",
]

_T = TypeVar("_T")


class Peer(msgspec.Struct, frozen=True):
    """A member as the cluster knows it."""

    id: int = msgspec.field(name="ID")
    peer_urls: list[str] = msgspec.field(name="peerURLs", default_factory=list)


class _Header(msgspec.Struct, frozen=True):
    member_id: int


class Status(msgspec.Struct, frozen=True):
    """A member's own view of itself and of the leader (0: it knows of none)."""

    header: _Header
    version: str
    leader: int = 0
    raft_term: int = msgspec.field(name="raftTerm", default=0)

    @property
    def leads(self) -> bool:
        """Whether the member takes itself for the leader."""
        return self.leader == self.header.member_id


class _Health(msgspec.Struct, frozen=True):
    health: str


class _MemberList(msgspec.Struct, frozen=True):
    members: list[Peer]


class _Nothing(msgspec.Struct, frozen=True):
    pass


def is_healthy(address: str, timeout_s: float) -> bool:
    """Whether the member serves reads that need a leader."""
    try:
        return _call(address, "/health", None, _Health, timeout_s).health == "true"
    except EtcdError:
        return False


def serves_peers(peer_address: str, timeout_s: float) -> bool:
    """Whether the member serves other members, at its peer address."""
    try:
        _call(peer_address, "/version", None, _Nothing, timeout_s)
    except EtcdError:
        return False
    return True


def status(address: str, timeout_s: float) -> Status:
    """Ask a member for its status.

    Raises:
        EtcdError: it refused; EtcdUnavailableError: it did not answer.
    """
    return _call(address, "/v3/maintenance/status", {}, Status, timeout_s)


def list_members(address: str, timeout_s: float) -> list[Peer]:
    """The cluster's members, as this member knows them.  Raises as :func:`status`."""
    return _call(address, "/v3/cluster/member/list", {}, _MemberList, timeout_s).members


def remove_member(address: str, member_id: int, timeout_s: float) -> None:
    """Take a member out of the cluster.  Raises as :func:`status`."""
    _call(address, "/v3/cluster/member/remove", {"ID": str(member_id)}, _Nothing, timeout_s)


def add_member(address: str, peer_url: str, timeout_s: float) -> None:
    """Announce a member that will start at this peer URL.  Raises as :func:`status`."""
    _call(address, "/v3/cluster/member/add", {"peerURLs": [peer_url]}, _Nothing, timeout_s)


def transfer_leadership(address: str, heir_id: int, timeout_s: float) -> None:
    """Make this member, the leader, pass that on.  Raises as :func:`status`."""
    path = "/v3/maintenance/transfer-leadership"
    _call(address, path, {"targetID": str(heir_id)}, _Nothing, timeout_s)


def _call(
    address: str, path: str, body: dict[str, object] | None, answer: type[_T], timeout_s: float
) -> _T:
    connection = http.client.HTTPConnection(address, timeout=timeout_s)
    try:
        if body is None:
            connection.request("GET", path)
        else:
            connection.request("POST", path, json.dumps(body))
        response = connection.getresponse()
        data = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise EtcdUnavailableError(f"etcd at {address} did not answer {path}: {error!r}") from error
    finally:
        connection.close()
    if response.status >= 300:
        text = data.decode("utf-8", "replace").strip()
        raise EtcdError(f"etcd at {address} refused {path}: HTTP {response.status} {text}")
    try:
        # Not strict: the gateway writes 64-bit numbers as strings.
        return msgspec.json.decode(data, type=answer, strict=False)
    except msgspec.DecodeError as error:
        raise EtcdError(f"etcd at {address} gave an unknown answer to {path}: {error}") from error
