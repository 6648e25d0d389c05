"""Who is healthy, who leads, who belongs to the cluster: put to the running members."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from etcd_grpc.devcluster import gateway
from etcd_grpc.errors import EtcdError, EtcdUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from etcd_grpc.devcluster.door import Door
    from etcd_grpc.devcluster.member import Node

__all__ = [
    "MemberEndedError",
    "agreed_leader",
    "await_healthy",
    "await_leader",
    "join",
    "leave",
    "majority",
]

_POLL_S = 0.02
_PROBE_TIMEOUT_S = 0.5
_CHANGE_TIMEOUT_S = 8.0  # etcd itself gives up on a change after 5 s and two election timeouts


class MemberEndedError(EtcdUnavailableError):
    """A member ended while it was waited for; the message ends with lines of its log."""


def majority(voters: int) -> int:
    """How many of so many voters can decide."""
    return voters // 2 + 1


def await_serving_peers(node: Node, timeout_s: float) -> None:
    """Wait until this member talks to other members, whether or not there is a majority.

    Raises as :func:`await_healthy`.
    """
    _await([node], lambda node: gateway.serves_peers(node.peer_door, _PROBE_TIMEOUT_S), timeout_s)


def await_healthy(nodes: Sequence[Node], timeout_s: float) -> None:
    """Wait until each of these members answers that it is healthy.

    Raises:
        MemberEndedError: one has ended.
        EtcdUnavailableError: one was not ready after ``timeout_s`` seconds.
    """
    _await(nodes, lambda node: gateway.is_healthy(node.door, _PROBE_TIMEOUT_S), timeout_s)


def _await(nodes: Sequence[Node], ready: Callable[[Node], bool], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    waiting = list(nodes)
    while True:
        for node in nodes:
            if not node.alive:
                raise MemberEndedError(f"{_state(node)}; from its log:\n{node.log_excerpt()}")
        waiting = [node for node in waiting if not ready(node)]
        if not waiting:
            return
        if time.monotonic() > deadline:
            names = ", ".join(node.name for node in waiting)
            raise EtcdUnavailableError(
                f"not ready after {timeout_s:g} s: {names}; "
                f"from the log of {waiting[0].name}:\n{waiting[0].log_excerpt()}"
            )
        time.sleep(_POLL_S)


def await_leader(nodes: Sequence[Node], timeout_s: float) -> Node:
    """The leader, as soon as a majority of all ``nodes`` agrees on one.

    Raises:
        EtcdUnavailableError: there was none after ``timeout_s`` seconds.
    """
    deadline = time.monotonic() + timeout_s
    while (leader := agreed_leader(nodes, majority(len(nodes)))) is None:
        if time.monotonic() > deadline:
            states = "; ".join(map(_state, nodes))
            raise EtcdUnavailableError(f"no leader after {timeout_s:g} s: {states}")
        time.sleep(_POLL_S)
    return leader


def agreed_leader(nodes: Sequence[Node], quorum: int) -> Node | None:
    """The member that takes itself for the leader and that ``quorum`` members follow, itself among
    them; ``None`` while there is none.

    Followers name a dead leader until their election timeout, and a leader that slept names itself
    until it hears of a newer term: hence both conditions, and the newest term.
    """
    views: list[tuple[Node, gateway.Status]] = []
    for node in nodes:
        if node.answering:
            try:
                views.append((node, gateway.status(node.door, _PROBE_TIMEOUT_S)))
            except EtcdError:
                continue
    claims = [(node, view) for node, view in views if view.leads]
    if not claims:
        return None
    leader, claim = max(claims, key=lambda pair: pair[1].raft_term)
    followers = sum(
        view.leader == claim.leader and view.raft_term == claim.raft_term for _, view in views
    )
    return leader if followers >= quorum else None


def leave(node: Node, nodes: Sequence[Node], timeout_s: float) -> None:
    """Take ``node`` out of the cluster of ``nodes``, if it is still in it.

    Raises:
        EtcdUnavailableError: there was no majority to decide it in time.
    """

    def remove(door: Door) -> None:
        for peer in gateway.list_members(door, _CHANGE_TIMEOUT_S):
            if node.peer_url in peer.peer_urls:
                gateway.remove_member(door, peer.id, _CHANGE_TIMEOUT_S)

    _insist(remove, node, nodes, timeout_s)


def join(node: Node, nodes: Sequence[Node], timeout_s: float) -> None:
    """Announce ``node``, which has left, as a new member.  Raises as :func:`leave`."""

    def add(door: Door) -> None:
        known = gateway.list_members(door, _CHANGE_TIMEOUT_S)
        if not any(node.peer_url in peer.peer_urls for peer in known):
            gateway.add_member(door, node.peer_url, _CHANGE_TIMEOUT_S)

    _insist(add, node, [other for other in nodes if other is not node], timeout_s)


def _insist(
    change: Callable[[Door], None], subject: Node, voters: Sequence[Node], timeout_s: float
) -> None:
    """Put ``change`` to the leader until it works; if ``subject`` leads, another must do so first.

    It looks before it acts, so that an attempt whose answer was lost does no harm.
    """
    deadline = time.monotonic() + timeout_s
    problem: EtcdError | None = None
    while True:
        leader = agreed_leader(voters, majority(len(voters)))
        try:
            if leader is subject:
                _hand_over(subject, voters)
            elif leader is not None:
                return change(leader.door)
        except EtcdError as error:
            problem = error
        if time.monotonic() > deadline:
            raise EtcdUnavailableError(
                f"{subject.name} cannot be replaced: no majority of the members decided it within "
                f"{timeout_s:g} s; restart(..., keep_data=True) needs none"
            ) from problem
        time.sleep(_POLL_S)


def _hand_over(leader: Node, voters: Sequence[Node]) -> None:
    """Make another member the leader, if one answers.  Raises as :func:`gateway.status`.

    A leader that takes part in its own removal leaves the rest waiting for an election.
    """
    heirs = [node for node in voters if node is not leader and node.answering]
    if heirs:
        heir = gateway.status(heirs[0].door, _PROBE_TIMEOUT_S).header.member_id
        gateway.transfer_leadership(leader.door, heir, _CHANGE_TIMEOUT_S)


def _state(node: Node) -> str:
    if node.process is None:
        return f"{node.name} was not started"
    if not node.alive:
        return f"{node.name} ended with status {node.process.returncode}"
    return f"{node.name} is paused" if node.paused else f"{node.name} runs"
