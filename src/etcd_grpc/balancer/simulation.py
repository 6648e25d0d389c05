"""What a policy would do to latencies, before anybody switches to it: a discrete-event simulation.

Calls arrive at random moments (Poisson, open loop: they do not wait for each other, as those of many
independent users do not), the policy under test picks a server, the server serves as many calls at
once as it can and queues the others.  Time is virtual: an hour takes seconds, and the same seed gives
the same figures.  Every policy meets the same calls at the same moments, and every server draws its
times from a generator of its own, so policies differ by what they do and by nothing else.

It is a model: no network, one client, no retries.  It ranks policies; it does not foretell
milliseconds.
"""

from __future__ import annotations

import heapq
import itertools
import json
import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc

from etcd_grpc.balancer.balancer import Balancer
from etcd_grpc.balancer.base import Call, Picker
from etcd_grpc.balancer.load import Stats
from etcd_grpc.balancer.policies import PolicyArgument, PolicyConfig, parse_policy
from etcd_grpc.balancer.simulation_report import Report, Result, summary
from etcd_grpc.balancer.stats_table import StatsTable
from etcd_grpc.balancer.ticket import Ticket
from etcd_grpc.errors import ConfigurationError
from etcd_grpc.model import Endpoint

__all__ = ["EVERY_POLICY", "Latency", "Server", "simulate"]

Latency = float | Sequence[float] | Callable[[random.Random], float]

# What is compared unless said otherwise: all that need no knowledge of the service.
EVERY_POLICY: Mapping[str, PolicyArgument] = {
    "pick_first": "pick_first",
    "round_robin": "round_robin",
    "random": "random",
    "weighted_round_robin": "weighted_round_robin",
    "ring_hash": "ring_hash",
    "least_request": "least_request",
    "least_request, peak_ewma": {"least_request": {"load": "peak_ewma"}},
    "outlier_detection": {
        "outlier_detection": {"childPolicy": [{"least_request": {"load": "peak_ewma"}}]}
    },
}

_REPORT_EVERY_S = 1.0  # a backend's load report


@dataclass(frozen=True, slots=True)
class Server:
    """A server of the simulation.

    Attributes:
        latency: Seconds to serve a call: a number, recorded samples of which one is drawn for each
            call, or a function of a ``random.Random``.
        concurrency: How many calls it serves at once; others queue.  0: any number.
        failures: The part of calls that fail, 0 to 1.
        failure_latency: Seconds until a call fails; like ``latency``.
        weight: As registered.
        zone: As registered.
        version: As registered.
        metadata: As registered.
    """

    latency: Latency
    concurrency: int = 0
    failures: float = 0.0
    failure_latency: Latency = 0.001
    weight: float = 1.0
    zone: str = ""
    version: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)


def simulate(
    servers: Mapping[str, Server],
    policies: Mapping[str, PolicyArgument] | Sequence[PolicyArgument] = EVERY_POLICY,
    *,
    rate: float,
    calls: int = 20_000,
    keys: int = 1_000,
    seed: int = 0,
) -> Report:
    """Send the same calls to the same servers by each policy, in virtual time.

    Args:
        servers: By name.
        policies: What to compare: by a name to show, or a list.
        rate: Calls a second, by chance evenly over time.
        calls: How many.
        keys: How many different keys the calls have, for ``ring_hash``.
        seed: Of all chance.

    Returns:
        Latencies, errors and shares for each policy; ``print`` shows a table.

    Raises:
        ConfigurationError: There is no server, ``rate`` is not above 0, or a policy is wrong.

    >>> servers = {f"s{n}": Server(latency=0.010, concurrency=4) for n in range(9)}
    >>> servers["slow"] = Server(latency=0.100, concurrency=4)
    >>> report = simulate(servers, ["round_robin", "least_request"], rate=1000, calls=5000)
    >>> report["least_request"].p99_ms < report["round_robin"].p99_ms
    True
    """
    if not servers or rate <= 0 or calls < 1:
        raise ConfigurationError("a simulation needs servers, a rate above 0 and at least one call")
    if not isinstance(policies, Mapping):
        policies = {_label(policy): policy for policy in policies}
    configs = {label: parse_policy(policy) for label, policy in policies.items()}
    rng = random.Random(seed)  # noqa: S311 - a simulation
    arrivals = list(itertools.islice(_arrivals(rate, keys, rng), calls))
    results = [_Run(servers, config, seed).result(label, arrivals) for label, config in configs.items()]
    return Report(rate, calls, seed, tuple(results))


def _arrivals(rate: float, keys: int, rng: random.Random) -> Iterator[tuple[float, str]]:
    now = 0.0
    while True:
        now += rng.expovariate(rate)
        yield now, str(rng.randrange(max(1, keys)))


def _label(policy: PolicyArgument) -> str:
    return policy if isinstance(policy, str) else json.dumps(policy)


class _Node:
    """A server under way: a ``Candidate``."""

    __slots__ = ("busy", "done", "endpoint", "queue", "rng", "server", "stats", "worked_s")

    def __init__(self, name: str, server: Server, table: StatsTable, seed: int) -> None:
        self.endpoint = Endpoint(
            key=name,
            address=name,
            weight=server.weight,
            zone=server.zone,
            version=server.version,
            metadata=server.metadata,
        )
        self.server = server
        self.stats: Stats = table.enter(self.endpoint)
        self.rng = random.Random(f"{seed} {name}")  # noqa: S311 - a simulation
        self.queue: deque[tuple[float, Ticket]] = deque()
        self.busy = 0
        self.done = 0  # since the last load report
        self.worked_s = 0.0  # likewise


class _Run:
    """One policy with its servers, from the first call to the last answer.

    Args:
        servers: By name.
        config: The policy.
        seed: Of all chance.
    """

    def __init__(self, servers: Mapping[str, Server], config: PolicyConfig, seed: int) -> None:
        self._now = 0.0
        self._order = itertools.count()  # of events at the same moment
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        table = StatsTable(self._clock)
        self._nodes = [_Node(name, server, table, seed) for name, server in servers.items()]
        rng = random.Random(seed)  # noqa: S311 - a simulation
        self._balancer = Balancer(config, rng, self._clock)
        self._picker: Picker[_Node] | None = self._balancer.picker(self._nodes)
        self._latencies: list[float] = []
        self._errors = 0
        self._left = 0

    def result(self, label: str, arrivals: Sequence[tuple[float, str]]) -> Result:
        """Let all calls arrive and end, and sum up."""
        self._left = len(arrivals)
        for at, key in arrivals:
            self._at(at, self._arrive, key)
        self._at(_REPORT_EVERY_S, self._report_loads)
        self._tick_later()
        while self._left:
            self._now, _, event, arguments = heapq.heappop(self._events)
            event(*arguments)
        picks = {node.endpoint.key: node.stats.picks for node in self._nodes}
        return summary(label, self._latencies, self._errors, picks)

    def _clock(self) -> float:
        return self._now

    def _at(self, when: float, event: Callable[..., None], *arguments: Any) -> None:
        heapq.heappush(self._events, (when, next(self._order), event, arguments))

    def _arrive(self, key: str) -> None:
        if self._picker is None:
            self._errors += 1
            self._left -= 1
            return
        node = self._picker.pick(Call(key) if self._balancer.wants_call else None)
        node.queue.append((self._now, Ticket(node.stats, self._clock)))
        self._serve(node)

    def _serve(self, node: _Node) -> None:
        server = node.server
        while node.queue and (not server.concurrency or node.busy < server.concurrency):
            arrived, ticket = node.queue.popleft()
            node.busy += 1
            fails = node.rng.random() < server.failures
            took_s = _draw(server.failure_latency if fails else server.latency, node.rng)
            self._at(self._now + took_s, self._end, node, ticket, arrived, took_s, fails)

    def _end(self, node: _Node, ticket: Ticket, arrived: float, took_s: float, fails: bool) -> None:
        node.busy -= 1
        node.done += 1
        node.worked_s += took_s
        self._left -= 1
        if fails:
            self._errors += 1
        else:
            self._latencies.append(self._now - arrived)
        if ticket.finish(grpc.StatusCode.UNAVAILABLE if fails else grpc.StatusCode.OK):
            self._tick()
        self._serve(node)

    def _tick(self) -> None:
        if self._balancer.tick():
            self._picker = self._balancer.picker(self._nodes)
            self._tick_later()

    def _tick_later(self) -> None:
        due = self._balancer.next_tick()
        if due is not None:
            self._at(max(due, self._now), self._due, due)

    def _due(self, due: float) -> None:
        if due == self._balancer.next_tick():  # else it has been done early
            self._balancer.tick()
            self._picker = self._balancer.picker(self._nodes)
            self._tick_later()

    def _report_loads(self) -> None:
        """Each server with a limit says how full it was (gRFC A51)."""
        for node in self._nodes:
            if node.server.concurrency:
                full = node.worked_s / node.server.concurrency / _REPORT_EVERY_S
                node.stats.tell(full, node.done / _REPORT_EVERY_S, 0.0, self._now)
            node.done, node.worked_s = 0, 0.0
        self._at(self._now + _REPORT_EVERY_S, self._report_loads)


def _draw(latency: Latency, rng: random.Random) -> float:
    if isinstance(latency, int | float):
        return float(latency)
    return max(0.0, latency(rng) if callable(latency) else rng.choice(latency))
