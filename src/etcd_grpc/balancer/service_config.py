"""gRPC's service config, in its own JSON: the policy, health checking, per-method timeouts and retries.

Source: grpc/service_config/service_config.proto and gRFC A6 (retryPolicy, hedgingPolicy,
retryThrottling).  Unknown fields are ignored, as gRPC does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
import msgspec

from etcd_grpc.balancer.policies import PolicyConfig, parse_policy
from etcd_grpc.balancer.settings import seconds
from etcd_grpc.errors import ConfigurationError

__all__ = ["HedgingPolicy", "MethodConfig", "RetryPolicy", "ServiceConfig", "Throttling"]

_MAX_ATTEMPTS = 5  # gRFC A6: higher values are treated as 5


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """gRFC A6: how often, after how long, and on which codes a call is sent again."""

    max_attempts: int
    initial_backoff_s: float
    max_backoff_s: float
    backoff_multiplier: float
    retryable: frozenset[grpc.StatusCode]


@dataclass(frozen=True, slots=True)
class HedgingPolicy:
    """gRFC A6: how often, and after how long, a call is sent again that has not been answered."""

    max_attempts: int
    delay_s: float
    non_fatal: frozenset[grpc.StatusCode]


@dataclass(frozen=True, slots=True)
class Throttling:
    """gRFC A6: no retry and no hedge while at most half of ``max_tokens`` are left."""

    max_tokens: float
    token_ratio: float


@dataclass(frozen=True, slots=True)
class MethodConfig:
    """What applies to the calls of a method; it has a retry policy, a hedging policy or neither.

    Attributes:
        plain: Whether a call that finds its endpoint connected begins as it does without any config.
    """

    timeout_s: float | None = None
    wait_for_ready: bool | None = None
    retry: RetryPolicy | None = None
    hedging: HedgingPolicy | None = None
    plain: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "plain", self.timeout_s is None and self.hedging is None)


class ServiceConfig:
    """A parsed service config.

    Args:
        config: JSON text, or the object that it would be.

    Raises:
        ConfigurationError: It is malformed; the message names the field.

    Two of the same text are equal.

    Attributes:
        own_policy: The balancing policy that it configures; None if it does not.
        health_service: What the instances are asked for by gRPC's health checking (gRFC A17); None:
            they are not asked.
        throttling: When not to retry; None without ``retryThrottling``.
    """

    def __init__(self, config: str | Mapping[str, Any] | None = None) -> None:
        try:
            raw = msgspec.json.encode(config or {}) if not isinstance(config, str) else config
            parsed = msgspec.json.decode(raw, type=_Config)
            self._source = raw.encode() if isinstance(raw, str) else raw
        except (msgspec.MsgspecError, TypeError, ValueError) as error:
            raise ConfigurationError(f"service config is malformed: {error}") from error
        self.own_policy = _policy(parsed)
        self.health_service = parsed.health.service_name if parsed.health else None
        self.throttling = _throttling(parsed.throttling) if parsed.throttling else None
        self._methods: dict[tuple[str, str], MethodConfig] = {}
        for item in parsed.methods:
            settings = _method(item)
            for name in item.name:
                if name.method and not name.service:
                    raise ConfigurationError("service config: a name has a method but no service")
                self._methods.setdefault((name.service, name.method), settings)

    @property
    def text(self) -> str:
        """Its JSON."""
        return self._source.decode()

    @property
    def policy(self) -> PolicyConfig:
        """The balancing policy; ``round_robin`` if none is configured."""
        return self.own_policy or parse_policy("round_robin")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ServiceConfig) and other._source == self._source

    def __hash__(self) -> int:
        return hash(self._source)

    def method(self, path: str) -> MethodConfig:
        """What applies to ``/package.Service/Method``: the most specific name wins."""
        service, _, method = path.removeprefix("/").rpartition("/")
        for key in ((service, method), (service, ""), ("", "")):
            if key in self._methods:
                return self._methods[key]
        return MethodConfig()


# The JSON's own shapes.


class _Name(msgspec.Struct):
    service: str = ""
    method: str = ""


class _Retry(msgspec.Struct, rename="camel"):
    max_attempts: int
    initial_backoff: str
    max_backoff: str
    backoff_multiplier: float
    retryable_status_codes: list[str | int]


class _Hedging(msgspec.Struct, rename="camel"):
    max_attempts: int
    hedging_delay: str = "0s"
    non_fatal_status_codes: list[str | int] = []


class _MethodConfig(msgspec.Struct, rename="camel"):
    name: list[_Name] = []
    timeout: str | None = None
    wait_for_ready: bool | None = None
    retry_policy: _Retry | None = None
    hedging_policy: _Hedging | None = None


class _Throttling(msgspec.Struct, rename="camel"):
    max_tokens: float
    token_ratio: float


class _Health(msgspec.Struct, rename="camel"):
    service_name: str | None = None


class _Config(msgspec.Struct):
    balancing: list[dict[str, Any]] | None = msgspec.field(name="loadBalancingConfig", default=None)
    health: _Health | None = msgspec.field(name="healthCheckConfig", default=None)
    methods: list[_MethodConfig] = msgspec.field(name="methodConfig", default_factory=list)
    throttling: _Throttling | None = msgspec.field(name="retryThrottling", default=None)


def _policy(config: _Config) -> PolicyConfig | None:
    try:
        return None if config.balancing is None else parse_policy(config.balancing)
    except ConfigurationError as error:
        raise ConfigurationError(f"service config: {error}") from error


def _method(item: _MethodConfig) -> MethodConfig:
    if item.hedging_policy is not None and item.retry_policy is not None:
        raise ConfigurationError(
            "service config: a methodConfig has retryPolicy and hedgingPolicy; choose one"
        )
    return MethodConfig(
        timeout_s=None if item.timeout is None else _seconds(item.timeout, "timeout"),
        wait_for_ready=item.wait_for_ready,
        retry=None if item.retry_policy is None else _retry(item.retry_policy),
        hedging=None if item.hedging_policy is None else _hedging(item.hedging_policy),
    )


def _retry(item: _Retry) -> RetryPolicy:
    policy = RetryPolicy(
        max_attempts=min(item.max_attempts, _MAX_ATTEMPTS),
        initial_backoff_s=_seconds(item.initial_backoff, "initialBackoff"),
        max_backoff_s=_seconds(item.max_backoff, "maxBackoff"),
        backoff_multiplier=item.backoff_multiplier,
        retryable=frozenset(_code(code) for code in item.retryable_status_codes),
    )
    wrong = [
        name
        for name, good in (
            ("maxAttempts (2 or more)", policy.max_attempts >= 2),
            ("initialBackoff (more than 0s)", policy.initial_backoff_s > 0),
            ("maxBackoff (more than 0s)", policy.max_backoff_s > 0),
            ("backoffMultiplier (more than 0)", policy.backoff_multiplier > 0),
            ("retryableStatusCodes (at least one)", bool(policy.retryable)),
        )
        if not good
    ]
    if wrong:
        raise ConfigurationError(f"service config: retryPolicy needs {', '.join(wrong)}")
    return policy


def _hedging(item: _Hedging) -> HedgingPolicy:
    if item.max_attempts < 2:
        raise ConfigurationError("service config: hedgingPolicy needs maxAttempts (2 or more)")
    return HedgingPolicy(
        max_attempts=min(item.max_attempts, _MAX_ATTEMPTS),
        delay_s=_seconds(item.hedging_delay, "hedgingDelay"),
        non_fatal=frozenset(_code(code) for code in item.non_fatal_status_codes),
    )


def _throttling(item: _Throttling) -> Throttling:
    if not (0 < item.max_tokens <= 1000 and item.token_ratio > 0):
        raise ConfigurationError(
            "service config: retryThrottling needs maxTokens in (0, 1000] and tokenRatio above 0"
        )
    return Throttling(item.max_tokens, item.token_ratio)


def _seconds(text: str, name: str) -> float:
    try:
        return seconds(text)
    except ValueError as error:
        raise ConfigurationError(f"service config: {name} {error}") from None


def _code(code: str | int) -> grpc.StatusCode:
    wanted = code.upper() if isinstance(code, str) else code  # gRFC A6: names in any case
    for status in grpc.StatusCode:
        if wanted in (status.name, status.value[0]):
            return status
    raise ConfigurationError(f"service config: {code!r} is no gRPC status code")
