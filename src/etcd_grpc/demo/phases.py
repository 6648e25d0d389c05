"""The phases: what each one changes, and what must be true of its calls.

A phase changes the set of servers (or of etcd members), waits until the change has happened, and then
leaves the set alone for a *steady* window.  It has held if no call failed in all of that time, and
if the steady window's calls went in equal shares to exactly those that serve.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from etcd_grpc.demo.load import CallError, Load, Tally
from etcd_grpc.demo.servers import Fleet, Server
from etcd_grpc.demo.view import ServiceView
from etcd_grpc.demo.waiting import Interrupts, wait_until
from etcd_grpc.devcluster import Cluster
from etcd_grpc.model import Status

__all__ = ["MIN_STEADY_CALLS", "PHASES", "TOLERANCE", "Phase", "PhaseResult", "World", "judge"]

TOLERANCE = 0.02  # of the mean share
# Exact round robin over few calls can miss the tolerance by where the window begins and ends.
MIN_STEADY_CALLS = 1000

_CHANGE_TIMEOUT_S = 15.0


@dataclass(slots=True)
class World:
    """What a phase can act on.

    ``note`` tells the user; ``tally`` counts the present phase's calls, and ``since`` is when it began,
    on time.monotonic's clock.
    """

    cluster: Cluster
    fleet: Fleet
    load: Load
    view: ServiceView
    ttl_s: int
    interrupts: Interrupts
    note: Callable[[str], None]
    tally: Tally
    since: float = 0.0

    @property
    def passed_s(self) -> float:
        """Seconds since the present phase began."""
        return time.monotonic() - self.since

    def listed(self) -> dict[str, Status]:
        """What etcd has: the status of each server by its address."""
        found = self.view.snapshot().endpoints.values()
        return {endpoint.address: endpoint.status for endpoint in found}

    def await_answer(self, server: Server) -> None:
        """Wait until ``server`` has answered a call of this phase."""
        self.wait(
            lambda: server.address in self.load.answered(self.tally),
            _CHANGE_TIMEOUT_S,
            f"an answer of {server.address}",
        )

    def wait(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Wait until ``condition`` or raise ``DemoError``."""
        wait_until(condition, timeout_s, what, self.interrupts)


@dataclass(frozen=True, slots=True)
class Phase:
    """``change`` ends when the set is constant; ``aftermath`` follows the steady window."""

    name: str
    about: str
    change: Callable[[World], None]
    aftermath: Callable[[World], None] | None = None


@dataclass(frozen=True, slots=True)
class PhaseResult:
    """What was counted in a phase.

    Attributes:
        by_instance: Answered calls of the whole phase, by address.
        steady: Those of the steady window; empty if the phase did not get there.
        expected: Who had to answer in the steady window.
        slowest_s: How long the slowest call took.
        problems: Why the phase has not held; empty if it has.
    """

    name: str
    calls: int
    failed: int
    seconds: float
    by_instance: Mapping[str, int]
    steady: Mapping[str, int]
    expected: tuple[str, ...]
    slowest_s: float = 0.0
    first_error: CallError | None = None
    problems: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the phase has held."""
        return not self.problems

    @property
    def deviation(self) -> float | None:
        """The largest distance of a steady share from the mean, relative to the mean."""
        return deviation(self.steady, self.expected)


def deviation(steady: Mapping[str, int], expected: Collection[str]) -> float | None:
    """Of the shares of those ``expected``; None if none of them answered."""
    shares = [steady.get(address, 0) for address in expected]
    if not sum(shares):
        return None
    mean = sum(shares) / len(shares)
    return max(abs(share - mean) for share in shares) / mean


def judge(phase: Tally, steady: Tally | None, expected: Collection[str]) -> list[str]:
    """Why a phase with these calls has not held; empty if it has.

    Args:
        phase: All its calls.
        steady: Those of the steady window; None if there was none.
        expected: The addresses that had to share them.
    """
    problems = []
    if phase.failed:
        error = phase.first_error
        first = f", the first with {error.code}: {error.details}" if error else ""
        problems.append(f"{phase.failed} of {phase.calls} calls failed{first}")
    if steady is not None:
        problems += _judge_shares(steady, expected)
    return problems


def _judge_shares(steady: Tally, expected: Collection[str]) -> list[str]:
    answered = steady.by_instance
    if steady.calls < MIN_STEADY_CALLS:
        return [f"only {steady.calls} calls in the steady window, too few to judge their shares"]
    problems = [
        f"{address} answered {count} calls in the steady window, and should have got none"
        for address, count in answered.items()
        if address not in expected
    ]
    problems += [f"{address} answered no call" for address in expected if not answered[address]]
    uneven = deviation(answered, expected)
    if uneven is not None and uneven > TOLERANCE:
        counts = ", ".join(f"{address}: {answered[address]}" for address in expected)
        problems.append(f"steady shares differ by {uneven:.1%} of the mean ({counts})")
    return problems


def _balanced(world: World) -> None:
    for server in world.fleet.serving:
        world.await_answer(server)


def _scale_out(world: World) -> None:
    world.note("starting a fourth server")
    (server,) = world.fleet.start(1)
    world.await_answer(server)
    world.note(f"{server.address} joined, and has answered its first call")


def _graceful_stop(world: World) -> None:
    server = world.fleet.serving[0]
    world.note(f"SIGTERM to {server.address}")
    world.fleet.stop(server)
    world.note(f"{server.address} withdrew from etcd, finished its calls and ended")


def _crash(world: World) -> None:
    server = world.fleet.serving[0]
    world.fleet.crash(server)
    world.note(f"{server.address} was killed with SIGKILL; etcd lists it until its lease ends")


def _entries_expire(world: World) -> None:
    """etcd drops a killed server by itself, when its lease ends."""
    serving = {server.address for server in world.fleet.serving}
    deadline_s = world.ttl_s + _CHANGE_TIMEOUT_S
    world.wait(lambda: world.listed().keys() == serving, deadline_s, "the end of its lease")
    world.note(f"etcd dropped it, {world.passed_s:.1f} s after the kill")


def _etcd_member_loss(world: World) -> None:
    leader = world.cluster.leader()
    world.cluster.kill(leader)
    world.note(f"{world.cluster.members[leader].name}, the leader of etcd, was killed with SIGKILL")
    successor = world.cluster.leader(_CHANGE_TIMEOUT_S)
    name = world.cluster.members[successor].name
    world.note(f"{name} leads, {world.passed_s:.1f} s after the kill; starting another server")
    (server,) = world.fleet.start(1)
    world.await_answer(server)
    world.note(f"{server.address} joined with two of three etcd members, and has answered a call")


PHASES = (
    Phase("balanced", "three servers share the calls", _balanced),
    Phase("scale_out", "a fourth server takes its share", _scale_out),
    Phase("graceful_stop", "a server leaves on SIGTERM", _graceful_stop),
    Phase("crash", "a server is killed with SIGKILL", _crash, _entries_expire),
    Phase("etcd_member_loss", "etcd's leader is killed, a server joins", _etcd_member_loss),
)
