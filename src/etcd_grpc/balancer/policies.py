"""The table of policies, and how one is configured: gRPC's ``loadBalancingConfig``.

A configuration is a list of objects with one name each, ``[{"least_request": {"choiceCount": 3}}]``.
The first policy that is known is taken, as in gRPC, so a list can begin with what only newer clients
know.  Wrappers have such a list in ``childPolicy``.  A bare name stands for the policy with its
defaults.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from etcd_grpc.balancer.base import Policy, Setup
from etcd_grpc.balancer.canary import CanarySettings
from etcd_grpc.balancer.filter import FilterSettings
from etcd_grpc.balancer.least_request import LeastRequestSettings
from etcd_grpc.balancer.match import Match
from etcd_grpc.balancer.outlier_detection import OutlierDetectionSettings
from etcd_grpc.balancer.pick_first import PickFirstSettings
from etcd_grpc.balancer.random_choice import RandomSettings
from etcd_grpc.balancer.ring_hash import RingHashSettings
from etcd_grpc.balancer.round_robin import RoundRobinSettings
from etcd_grpc.balancer.settings import Settings, decode
from etcd_grpc.balancer.slow_start import SlowStartSettings
from etcd_grpc.balancer.subset import SubsetSettings
from etcd_grpc.balancer.weighted_round_robin import WeightedRoundRobinSettings
from etcd_grpc.balancer.zone_aware import ZoneAwareSettings
from etcd_grpc.errors import ConfigurationError

__all__ = ["ALIASES", "POLICIES", "PolicyArgument", "PolicyConfig", "parse_policy"]

# The table of policies: a new one is one file and one line here.
POLICIES: Mapping[str, type[Settings]] = MappingProxyType(
    {
        "canary": CanarySettings,
        "filter": FilterSettings,
        "least_request": LeastRequestSettings,
        "outlier_detection": OutlierDetectionSettings,
        "pick_first": PickFirstSettings,
        "random": RandomSettings,
        "ring_hash": RingHashSettings,
        "round_robin": RoundRobinSettings,
        "slow_start": SlowStartSettings,
        "subset": SubsetSettings,
        "weighted_round_robin": WeightedRoundRobinSettings,
        "zone_aware": ZoneAwareSettings,
    }
)
# Names under which gRPC has or had the same.
ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "least_request_experimental": "least_request",
        "outlier_detection_experimental": "outlier_detection",
        "random_subsetting_experimental": "subset",
        "ring_hash_experimental": "ring_hash",
    }
)

PolicyArgument = str | Mapping[str, Any] | Sequence[Mapping[str, Any]]
_ONCE = frozenset({"outlier_detection", "slow_start"})  # two would both write to, or ramp, the same
_MOST_LAYERS = 16  # no sensible configuration comes near; a hostile one must not exhaust the stack


@dataclass(frozen=True, slots=True)
class PolicyConfig:
    """A policy's checked configuration, of which any number of policies can be built.

    Attributes:
        name: In ``POLICIES``.
        settings: Its own.
        child: What a wrapper wraps.
    """

    name: str
    settings: Settings
    child: PolicyConfig | None = None

    def build(self, setup: Setup) -> Policy:
        """A new policy."""
        child = self.child
        if child is None:
            return self.settings.build(setup)
        return self.settings.build(replace(setup, child=lambda: child.build(setup)))

    @property
    def wants_call(self) -> bool:
        """Whether pickers need a ``Call``."""
        return any(layer.settings.wants_call for layer in self.layers())

    @property
    def wants_outcomes(self) -> bool:
        """Whether it matters how calls end, and how long they take."""
        return any(layer.settings.wants_outcomes for layer in self.layers())

    @property
    def ejects(self) -> bool:
        """Whether it takes endpoints out that fail."""
        return any(layer.name == "outlier_detection" for layer in self.layers())

    @property
    def wants_reports(self) -> bool:
        """Whether it goes by what servers report of their load."""
        return any(layer.name == "weighted_round_robin" for layer in self.layers())

    def layers(self) -> tuple[PolicyConfig, ...]:
        """From the outermost to the innermost."""
        return (self, *(self.child.layers() if self.child else ()))

    def only(self, match: Match) -> PolicyConfig:
        """The same among endpoints that match: what a target's ``?version=v2`` means."""
        return PolicyConfig("filter", POLICIES["filter"](match=match), self)  # type: ignore[call-arg]

    def __str__(self) -> str:
        return " > ".join(layer.name for layer in self.layers())


def parse_policy(given: PolicyArgument) -> PolicyConfig:
    """Read a policy's configuration.

    Args:
        given: A name, one object, or a list of which the first known policy counts.

    Raises:
        ConfigurationError: No policy is known, or its settings are wrong; known policies or the field
            are named.
    """
    if isinstance(given, str):
        given = {given: {}}
    return _parse([given] if isinstance(given, Mapping) else given, "", _MOST_LAYERS)


def _parse(listed: Sequence[Mapping[str, Any]], inside: str, deeper: int) -> PolicyConfig:
    if not deeper:
        raise ConfigurationError(f"policy{inside}: more than {_MOST_LAYERS} policies in each other")
    names = [name for item in listed for name in item]
    for item in listed:
        for given, raw in item.items():
            name = ALIASES.get(given, given)
            if name in POLICIES:
                return _configured(name, raw, inside, deeper)
    known = ", ".join(sorted(POLICIES))
    what = f"unknown policy {names[0]!r}" if len(names) == 1 else f"no known policy among {names}"
    raise ConfigurationError(f"{what}{inside}; known are {known}")


def _configured(name: str, raw: Any, inside: str, deeper: int) -> PolicyConfig:
    settings = decode(f"{name}{inside}", {} if raw is None else raw, POLICIES[name])
    listed = getattr(settings, "child_policy", None)
    if listed is None:
        return PolicyConfig(name, settings)
    child = _parse(listed, f" in {name}{inside}", deeper - 1)
    _check_child(name, child, inside)
    return PolicyConfig(name, settings, child)


def _check_child(name: str, child: PolicyConfig, inside: str) -> None:
    """What a wrapper cannot wrap."""
    if name in _ONCE and any(layer.name == name for layer in child.layers()):
        raise ConfigurationError(f"policy {name}{inside}: {child} has another {name}")
    if name == "slow_start" and not all(layer.settings.heeds_weights for layer in child.layers()):
        heeding = sorted(n for n, kind in POLICIES.items() if kind.heeds_weights)
        raise ConfigurationError(
            f"policy slow_start{inside}: {child} does not heed weights; {', '.join(heeding)} do"
        )
