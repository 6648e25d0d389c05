"""The asyncio twin of ``etcd_grpc``: the same functions for ``grpc.aio``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from etcd_grpc.channel.aio.channel import Channel, insecure_channel, secure_channel
from etcd_grpc.config import EtcdArgument
from etcd_grpc.registration import DEFAULT_TTL_S, AsyncRegistration, plan
from etcd_grpc.server.aio import Lifecycle, serve

__all__ = [
    "AsyncRegistration",
    "Channel",
    "Lifecycle",
    "insecure_channel",
    "register",
    "secure_channel",
    "serve",
]


def register(
    service: str,
    *,
    port: int | None = None,
    host: str | None = None,
    address: str | None = None,
    id: str | None = None,  # noqa: A002 - the field's own name
    weight: float = 1.0,
    zone: str = "",
    version: str = "",
    metadata: Mapping[str, Any] | None = None,
    ttl_s: int = DEFAULT_TTL_S,
    settle_s: float = 0.5,
    timeout_s: float = 5.0,
    required: bool = True,
    etcd: EtcdArgument = None,
) -> AsyncRegistration:
    """As ``etcd_grpc.register``, for ``async with``: registered on entry, withdrawn on exit.

    The lease is kept by a thread of its own: a blocked event loop does not lose it.

    Raises:
        ConfigurationError: An argument is wrong.
    """
    return AsyncRegistration(
        plan(
            service,
            port=port,
            host=host,
            address=address,
            id=id,
            weight=weight,
            zone=zone,
            version=version,
            metadata=metadata,
            ttl_s=ttl_s,
            settle_s=settle_s,
            timeout_s=timeout_s,
            required=required,
            etcd=etcd,
        )
    )
