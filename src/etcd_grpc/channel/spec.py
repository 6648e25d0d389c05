"""What a balanced channel is made of, gathered and checked once: the same for both worlds."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from etcd_grpc.balancer.balancer import Balancer
from etcd_grpc.balancer.base import Clock
from etcd_grpc.balancer.policies import PolicyArgument, PolicyConfig, parse_policy
from etcd_grpc.balancer.service_config import ServiceConfig
from etcd_grpc.config import EtcdArgument, EtcdConfig
from etcd_grpc.target import Target, parse_target

__all__ = ["ChannelSpec", "Options"]

Options = Sequence[tuple[str, Any]]

_SERVICE_CONFIG = "grpc.service_config"


@dataclass(frozen=True, slots=True)
class ChannelSpec:
    """A checked description of a balanced channel.

    Attributes:
        target: Which service.
        etcd: Where it is looked up.
        service_config: Methods' timeouts and retries.
        policy: The balancing policy.
        options: Channel options for each real channel.
        credentials: None for plaintext.
        compression: The channels' default compression.
    """

    target: Target
    etcd: EtcdConfig
    service_config: ServiceConfig
    policy: PolicyConfig
    options: Options
    credentials: grpc.ChannelCredentials | None
    compression: grpc.Compression | None

    @classmethod
    def make(
        cls,
        target: str,
        options: Options | None,
        compression: grpc.Compression | None,
        credentials: grpc.ChannelCredentials | None,
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
        config = EtcdConfig.of(etcd)
        config.certificates()  # a file that is missing is told here, not at the first call
        # Each endpoint has its own connection: one that is put again must not inherit the reconnect
        # backoff of the one before.  An option of the user's comes later and wins.
        own = (("grpc.use_local_subchannel_pool", 1),)
        passed = tuple(option for option in given if option[0] != _SERVICE_CONFIG)
        return cls(
            parse_target(target),
            config,
            parsed,
            chosen,
            own + passed,
            credentials,
            compression,
        )

    def make_balancer(self, rng: random.Random, clock: Clock) -> Balancer:
        """A new balancer with the chosen policy; ``clock`` is the one that stamps statistics."""
        return Balancer(self.policy, rng, clock)
