"""A policy with all its layers, as a channel drives it.

The channel

1. connects to the endpoints that ``select`` returns,
2. publishes ``picker(...)`` of those that are connected, at every change of that set,
3. calls ``tick`` when ``next_tick`` is due and soon after an ``observe`` or ``finish`` asked for it
   (many may share one), and publishes a new picker if it returns True,

all on one thread.  Calls, on any thread, use the picker and the candidate's ``stats``: only if
``wants_call`` they make a ``Call`` for it, only if ``wants_outcomes`` they tell how they ended.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NoReturn, TypeVar

from etcd_grpc.balancer.base import (
    Candidate,
    Clock,
    Guarding,
    Picker,
    Policy,
    Selecting,
    Setup,
    Timed,
    select,
    walk,
)
from etcd_grpc.balancer.policies import PolicyConfig
from etcd_grpc.model import Endpoint

__all__ = ["Balancer"]

C = TypeVar("C", bound=Candidate)


class Balancer:
    """One channel's policy.

    Args:
        config: Which.
        rng: The source of chance; only its own methods are called, which are atomic.
        clock: Seconds, monotonic; the one that stamps the candidates' statistics.
        zone: The caller's, for policies that heed it and are not told another; "" when unknown.

    Attributes:
        config: Which policy it is.
        wants_call: Pickers need a ``Call``.
        wants_outcomes: It matters how calls end.
        selects: It leaves endpoints out, so ``select`` has to be asked.
    """

    def __init__(self, config: PolicyConfig, rng: random.Random, clock: Clock, zone: str = "") -> None:
        self.config = config
        self.wants_call = config.wants_call
        self.wants_outcomes = config.wants_outcomes
        self._clock = clock
        self._policy: Policy = config.build(Setup(rng, clock, _no_child, zone))
        self.selects = any(isinstance(policy, Selecting) for policy in walk(self._policy))

    def select(self, endpoints: Sequence[Endpoint]) -> Sequence[Endpoint]:
        """Those of all known ``endpoints`` that deserve a connection."""
        return select(self._policy, [endpoint for endpoint in endpoints if endpoint.weight > 0])

    def picker(self, candidates: Sequence[C]) -> Picker[C] | None:
        """A picker over ``candidates``, those that are connected; None if none of them may get a call.

        What has weight 0 gets no call, by any policy.
        """
        weights = [candidate.endpoint.weight for candidate in candidates]
        if weights and not min(weights) > 0:
            pairs = [pair for pair in zip(candidates, weights, strict=True) if pair[1] > 0]
            candidates, weights = [c for c, _ in pairs], [w for _, w in pairs]
        return self._policy.picker(candidates, weights) if candidates else None

    def next_tick(self) -> float | None:
        """When ``tick`` is due, on the clock; None: not before the next picker."""
        dues = [p.next_tick() for p in walk(self._policy) if isinstance(p, Timed)]
        return min((due for due in dues if due is not None), default=None)

    def tick(self) -> bool:
        """Let the policy decide anew; return whether a new picker is needed."""
        now = self._clock()
        changed = [p.tick(now) for p in walk(self._policy) if isinstance(p, Timed)]
        return any(changed)

    @property
    def panicking(self) -> bool:
        """Whether so few endpoints are well that all are used."""
        return any(p.panicking for p in walk(self._policy) if isinstance(p, Guarding))


def _no_child() -> NoReturn:
    raise AssertionError("a policy without childPolicy has no child")
