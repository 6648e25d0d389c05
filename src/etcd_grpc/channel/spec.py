"""What a balanced channel is made of, gathered and checked once: the same for both worlds."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from etcd_grpc.balancer.balancer import Balancer
from etcd_grpc.balancer.base import Clock
from etcd_grpc.balancer.match import Match
from etcd_grpc.balancer.policies import PolicyArgument, PolicyConfig, parse_policy
from etcd_grpc.balancer.service_config import ServiceConfig
from etcd_grpc.channel.replay import DEFAULT_LIMIT
from etcd_grpc.config import EtcdArgument, EtcdConfig, own_zone
from etcd_grpc.target import Target, parse_target
from etcd_grpc.tls.channel import ChannelTls

__all__ = ["ChannelSpec", "Effective", "Options"]

Options = Sequence[tuple[str, Any]]

_SERVICE_CONFIG = "grpc.service_config"
_NOT_SHARED = "grpc.service_config_disable_resolution"  # gRPC's name for it
_REPLAY_LIMIT = "grpc.per_rpc_retry_buffer_size"  # gRPC's name for it
_OURS = frozenset({_SERVICE_CONFIG, _NOT_SHARED})
# Of every real channel, unless the user gives the same option: of two, C-core takes the first.
_OWN = (
    # Each endpoint has its own connection: one that is put again must not inherit the reconnect backoff
    # of the one before.
    ("grpc.use_local_subchannel_pool", 1),
    # A host that is gone without a word: what is sent there and not acknowledged for 10 s closes the
    # connection (TCP_USER_TIMEOUT, gRFC A18), which takes no ping.  C-core sets it only together with
    # pings, and servers as they come allow one every 5 min while they send nothing: with more they end
    # the connection, and the streams on it, as "too_many_pings".
    ("grpc.keepalive_time_ms", 360_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),  # of pings, by whose wish ever; C-core's is a minute
)


@dataclass(frozen=True, slots=True)
class ChannelSpec:
    """A checked description of a balanced channel.

    Attributes:
        target: Which service.
        etcd: Where it is looked up.
        service_config: The channel's own, which one in etcd replaces.
        policy: The channel's own policy, which that of a service config in etcd replaces.
        shares_config: Whether a service config in etcd is looked for.
        options: Channel options for each real channel.
        credentials: None for plaintext.
        compression: The channels' default compression.
    """

    target: Target
    etcd: EtcdConfig
    service_config: ServiceConfig
    policy: PolicyConfig
    shares_config: bool
    options: Options
    credentials: grpc.ChannelCredentials | ChannelTls | None
    compression: grpc.Compression | None

    @classmethod
    def make(
        cls,
        target: str,
        options: Options | None,
        compression: grpc.Compression | None,
        credentials: grpc.ChannelCredentials | ChannelTls | None,
        *,
        etcd: EtcdArgument,
        policy: PolicyArgument | None,
        service_config: str | Mapping[str, Any] | None,
    ) -> ChannelSpec:
        """Gather the arguments of a channel function.

        The service config is the argument, else the ``grpc.service_config`` channel option; ``policy``
        wins over its ``loadBalancingConfig``.

        Raises:
            ConfigurationError: One of them is wrong.
        """
        given = tuple(options or ())
        if service_config is None:
            service_config = next((value for name, value in given if name == _SERVICE_CONFIG), None)
        parsed = ServiceConfig(service_config)
        chosen = parse_policy(policy) if policy else parsed.policy
        shares = not any(name == _NOT_SHARED and value for name, value in given)
        config = EtcdConfig.of(etcd)
        config.certificates()  # a file that is missing is told here, not at the first call
        if isinstance(credentials, ChannelTls):
            credentials.files().load()
        passed = tuple(option for option in given if option[0] not in _OURS)
        names = {name for name, _ in passed}
        own = tuple(option for option in _OWN if option[0] not in names)
        return cls(
            parse_target(target),
            config,
            parsed,
            chosen,
            shares,
            own + passed,
            credentials,
            compression,
        )

    @property
    def replay_limit(self) -> int:
        """How many bytes of a call's requests are kept for another attempt."""
        given = (value for name, value in self.options if name == _REPLAY_LIMIT)
        return next(given, DEFAULT_LIMIT)

    def effective(self, found: ServiceConfig | None = None) -> Effective:
        """What applies while etcd holds the service config ``found``.

        As in gRPC, what the resolver finds replaces the channel's own; a policy that was chosen for the
        channel stays where the found one names none.  A target's query narrows either.
        """
        config = self.service_config if found is None else found
        policy = self.policy if found is None else found.own_policy or self.policy
        query = self.target.query
        return Effective(config, policy.only(Match.of(dict(query))) if query else policy)


@dataclass(frozen=True, slots=True)
class Effective:
    """What applies to the calls of a channel at one time.

    Attributes:
        service_config: Methods' timeouts and retries, health checking.
        policy: The balancing policy.
    """

    service_config: ServiceConfig
    policy: PolicyConfig

    def make_balancer(self, rng: random.Random, clock: Clock) -> Balancer:
        """A new balancer; ``clock`` is the one that stamps statistics."""
        return Balancer(self.policy, rng, clock, own_zone())
