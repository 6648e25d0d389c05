"""What tests of policies share: a clock moved by hand, endpoints that are only names, counts."""

from __future__ import annotations

import collections
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from etcd_grpc.balancer.balancer import Balancer
from etcd_grpc.balancer.base import Call, Picker
from etcd_grpc.balancer.load import Stats
from etcd_grpc.balancer.policies import PolicyArgument, parse_policy
from etcd_grpc.balancer.stats_table import StatsTable
from etcd_grpc.balancer.ticket import Ticket
from etcd_grpc.model import Endpoint

__all__ = ["Clock", "Node", "Set", "balancer", "counts", "endpoint", "picks", "shares", "spread"]

OK = grpc.StatusCode.OK


class Clock:
    """Seconds, moved by hand."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@dataclass(eq=False, slots=True)
class Node:
    """A candidate."""

    endpoint: Endpoint
    stats: Stats

    def __repr__(self) -> str:
        return self.endpoint.key


def endpoint(name: str, **fields: Any) -> Endpoint:
    """An endpoint whose key, and address unless given, are made of its name."""
    return Endpoint(key=name, address=fields.pop("address", f"{name}:50051"), **fields)


class Set:
    """Candidates whose statistics survive updates, on one clock."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.table = StatsTable(self.clock)

    def node(self, name: str, **fields: Any) -> Node:
        made = endpoint(name, **fields)
        return Node(made, self.table.enter(made))

    def nodes(self, *names: str, **fields: Any) -> list[Node]:
        return [self.node(name, **fields) for name in names]

    def weighted(self, weights: Mapping[str, float]) -> list[Node]:
        return [self.node(name, weight=weight) for name, weight in weights.items()]

    def ticket(self, node: Node) -> Ticket:
        return Ticket(node.stats, self.clock)

    def call(self, node: Node, code: grpc.StatusCode = OK, rtt_s: float = 0.0) -> bool:
        """One call from beginning to end."""
        ticket = self.ticket(node)
        self.clock.now += rtt_s
        return ticket.finish(code)


def balancer(
    policy: PolicyArgument, clock: Callable[[], float] | None = None, seed: int = 1
) -> Balancer:
    return Balancer(parse_policy(policy), random.Random(seed), clock or Clock())


def picks(picker: Picker[Any] | None, count: int, call: Call | None = None) -> list[str]:
    """The keys of the next ``count`` choices."""
    assert picker is not None
    return [picker.pick(call).endpoint.key for _ in range(count)]


def counts(picker: Picker[Any] | None, count: int) -> collections.Counter[str]:
    return collections.Counter(picks(picker, count))


def shares(picker: Picker[Any] | None, count: int) -> dict[str, float]:
    return {key: times / count for key, times in counts(picker, count).items()}


def spread(picked: Iterable[str], members: Sequence[str]) -> int:
    """The largest difference between two members' numbers of calls."""
    counted = collections.Counter(picked)
    numbers = [counted[member] for member in members]
    return max(numbers) - min(numbers)
