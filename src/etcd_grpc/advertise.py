"""Which address to tell clients: the one given, ``ETCD_GRPC_ADVERTISE``, or the route to etcd.

The rule: an address that clients elsewhere cannot use is refused before anything is written.
"""

from __future__ import annotations

import os
import socket

from etcd_grpc.address import is_loopback
from etcd_grpc.config import EtcdConfig
from etcd_grpc.errors import ConfigurationError
from etcd_grpc.model import split_address

__all__ = ["advertised"]


def advertised(config: EtcdConfig, port: int | None, host: str | None, address: str | None) -> str:
    """The ``host:port`` to tell clients.

    Raises:
        ConfigurationError: It cannot be known, or clients elsewhere could not use it.
    """
    if address is None:
        told, told_port = _split_advertise(os.environ.get("ETCD_GRPC_ADVERTISE", ""))
        given = port if port is not None else told_port
        if given is None:
            raise ConfigurationError(
                "neither port nor address is given: pass the port that "
                "server.add_insecure_port returned"
            )
        if isinstance(given, bool) or not isinstance(given, int) or not 1 <= given <= 65535:
            raise ConfigurationError(
                f"port {given!r} is not in 1..65535: pass the port that "
                "server.add_insecure_port returned"
            )
        address = f"{_bracketed(host or told or _local_host(config))}:{given}"
    elif port is not None or host is not None:
        raise ConfigurationError("pass either address, or port and host")
    if is_loopback(address) and not all(is_loopback(etcd) for etcd in config.addresses):
        raise ConfigurationError(
            f"{address} is a loopback address, but etcd ({', '.join(config.addresses)}) is on another "
            "host, where clients may be too: pass host=..., or set ETCD_GRPC_ADVERTISE"
        )
    return address


def _split_advertise(text: str) -> tuple[str, int | None]:
    """``host`` or ``host:port``."""
    if not text or text.endswith("]") or ":" not in text:
        return text, None
    return split_address(text)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _local_host(config: EtcdConfig) -> str:
    """The local address from which etcd is reached: the kernel's route, no packet is sent."""
    host, port = split_address(config.addresses[0])
    try:
        family, kind, _, _, where = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_DGRAM)[
            0
        ]
        with socket.socket(family, kind) as probe:
            probe.connect(where)
            local: str = probe.getsockname()[0]
    except (OSError, UnicodeError) as error:
        raise ConfigurationError(
            f"cannot find out which local address reaches etcd at {host} ({error}): pass host=..., "
            "or set ETCD_GRPC_ADVERTISE"
        ) from error
    return local
