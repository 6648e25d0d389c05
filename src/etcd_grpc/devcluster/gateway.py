"""What a local cluster asks its members to know who is healthy, who leads and who belongs to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from etcd_grpc.errors import EtcdError

if TYPE_CHECKING:
    from etcd_grpc.devcluster.door import Door

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


def is_healthy(door: Door, timeout_s: float) -> bool:
    """Whether the member serves reads that need a leader; with a NOSPACE alarm it still does."""
    try:
        text = door.get("/health?exclude=NOSPACE", timeout_s)
        return msgspec.json.decode(text, type=_Health).health == "true"
    except (EtcdError, msgspec.DecodeError):
        return False


def serves_peers(door: Door, timeout_s: float) -> bool:
    """Whether the member serves other members, at the door for its peers."""
    try:
        door.get("/version", timeout_s)
    except EtcdError:
        return False
    return True


def status(door: Door, timeout_s: float) -> Status:
    """Ask a member for its status.  Raises as :meth:`Door.post`."""
    return door.post("/v3/maintenance/status", {}, Status, timeout_s)


def list_members(door: Door, timeout_s: float) -> list[Peer]:
    """The cluster's members, as this member knows them.  Raises as :meth:`Door.post`."""
    return door.post("/v3/cluster/member/list", {}, _MemberList, timeout_s).members


def remove_member(door: Door, member_id: int, timeout_s: float) -> None:
    """Take a member out of the cluster.  Raises as :meth:`Door.post`."""
    door.post("/v3/cluster/member/remove", {"ID": str(member_id)}, _Nothing, timeout_s)


def add_member(door: Door, peer_url: str, timeout_s: float) -> None:
    """Announce a member that will start at this peer URL.  Raises as :meth:`Door.post`."""
    door.post("/v3/cluster/member/add", {"peerURLs": [peer_url]}, _Nothing, timeout_s)


def transfer_leadership(door: Door, heir_id: int, timeout_s: float) -> None:
    """Make this member, the leader, pass that on.  Raises as :meth:`Door.post`."""
    path = "/v3/maintenance/transfer-leadership"
    door.post(path, {"targetID": str(heir_id)}, _Nothing, timeout_s)
