"""What a policy is: it makes an immutable picker of the endpoints that can take calls.

A new picker is made at every change of that set and published by one assignment; a call reads it
without a lock.  What must outlive a picker (a position, the age of a ramp) belongs to the policy, what
was learnt of an endpoint to the endpoint's ``Stats``, and nothing to the picker.

A policy is made, asked for pickers and driven in time on one thread, the loop of its channel.  Calls,
on any thread, touch only pickers and ``Stats``.  So no policy needs a lock.

The rule is one small protocol, ``Policy``.  What only some policies do is a protocol of its own, and
a policy implements only what it does: ``Parent`` (it has child policies), ``Timed`` (time changes
what it decides), ``Selecting`` (it leaves endpoints out, so they need no connection), ``Guarding``
(it can panic).  ``walk`` finds them in a tree of policies.

Weights are handed down beside the candidates, so that a wrapper can change them (``slow_start``) and a
pick costs nothing for it.  They are above 0: what has weight 0 never gets here (``Balancer.picker``).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

from etcd_grpc.balancer.load import Stats
from etcd_grpc.model import Endpoint

__all__ = [
    "Call",
    "Candidate",
    "Clock",
    "Guarding",
    "Parent",
    "Picker",
    "Policy",
    "Selecting",
    "Setup",
    "Timed",
    "Turning",
    "select",
    "walk",
]

Clock = Callable[[], float]  # seconds, monotonic


class Candidate(Protocol):
    """What a picker chooses among: a subchannel, or a server of the simulator."""

    @property
    def endpoint(self) -> Endpoint:
        """What is known of it from the registry."""

    @property
    def stats(self) -> Stats:
        """What calls have shown of it."""


C = TypeVar("C", bound=Candidate)
T_co = TypeVar("T_co", covariant=True)


class Call(NamedTuple):
    """What a picker may know of a call.  Made only for policies that want it.

    Attributes:
        key: The caller's key for ``ring_hash``; it wins over a header.
        metadata: The call's headers.
        skip: Candidates that have been tried for this call, and are not to be picked again.
    """

    key: str | None = None
    metadata: Sequence[tuple[str, str | bytes]] = ()
    skip: Collection[object] = ()


class Picker(Protocol[T_co]):
    """Chooses one of a fixed, non-empty set.  Called from any thread; never blocks."""

    def pick(self, call: Call | None = None) -> T_co:
        """The choice for one call."""

    def __len__(self) -> int:
        """How many there are to choose from."""


@runtime_checkable
class Turning(Protocol[T_co]):
    """A picker for which all calls are alike, and whose choice is one step of a C function."""

    @property
    def turn(self) -> Callable[[], T_co]:
        """As ``pick``."""


class Policy(Protocol):
    """Makes pickers."""

    def picker(self, candidates: Sequence[C], weights: Sequence[float]) -> Picker[C] | None:
        """A picker over ``candidates``, which are not empty; None: no call may go to any of them.

        Args:
            candidates: The endpoints that are connected.
            weights: Of each of them, above 0.
        """


@runtime_checkable
class Parent(Protocol):
    """A policy that leaves the choice to others."""

    def children(self) -> Sequence[Policy]:
        """Those it has now."""


@runtime_checkable
class Timed(Protocol):
    """A policy whose decision changes with time, or with what was learnt of the endpoints."""

    def next_tick(self) -> float | None:
        """When ``tick`` is due, on the policy's clock; None while nothing is to be awaited."""

    def tick(self, now: float) -> bool:
        """Decide anew; return whether a new picker is needed.  It may be called early."""


@runtime_checkable
class Selecting(Protocol):
    """A policy that leaves endpoints out, whether they are connected or not."""

    def select(self, endpoints: Sequence[Endpoint]) -> Sequence[Endpoint]:
        """Those of ``endpoints`` that can get calls; the others need no connection."""


@runtime_checkable
class Guarding(Protocol):
    """A policy that keeps calls away from endpoints, unless too few would be left."""

    @property
    def panicking(self) -> bool:
        """Whether too few are left, so that all are used."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What a policy is made with.

    Attributes:
        rng: The source of chance; its ``random`` is called from any thread.
        clock: The one on which statistics are stamped.
        child: Makes a new child policy, for wrappers.
        zone: The caller's; "" when unknown.
    """

    rng: random.Random
    clock: Clock
    child: Callable[[], Policy]
    zone: str = ""


def walk(policy: Policy) -> Iterator[Policy]:
    """``policy`` and all below it, parents first."""
    yield policy
    if isinstance(policy, Parent):
        for child in policy.children():
            yield from walk(child)


def select(policy: Policy, endpoints: Sequence[Endpoint]) -> Sequence[Endpoint]:
    """Those of ``endpoints`` that need a connection, by every layer down to the first fork."""
    if isinstance(policy, Selecting):
        endpoints = policy.select(endpoints)
    children = policy.children() if isinstance(policy, Parent) else ()
    return select(children[0], endpoints) if len(children) == 1 else endpoints
