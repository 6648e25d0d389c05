"""Which address to tell clients.

In this order: what the caller gives; ``ETCD_GRPC_ADVERTISE`` (``host`` or ``host:port``); ``POD_IP``,
as Kubernetes' downward API usually names it; the interface from which the kernel would reach etcd.

The rule: an address that clients elsewhere cannot use is refused before anything is written, and what
is said names where the address came from and what to set instead.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from etcd_grpc.address import is_loopback
from etcd_grpc.config import EtcdConfig
from etcd_grpc.errors import ConfigurationError
from etcd_grpc.model import ip_of, shown, split_address, unusable

__all__ = ["advertised", "choose_address"]

_VARIABLE = "ETCD_GRPC_ADVERTISE"
_POD_IP = "POD_IP"
_WAY_OUT = (
    "pass the address at which clients reach this process as host=... (--host), or set "
    "ETCD_GRPC_ADVERTISE"
)
_WHICH_PORT = "pass the port that server.add_insecure_port returned (--port)"


class _Told(NamedTuple):
    """A host (IPv6 in brackets), a port if there is one with it, and who says so."""

    host: str
    port: int | None
    source: str


def advertised(config: EtcdConfig, port: int | None, host: str | None, address: str | None) -> str:
    """The ``host:port`` to tell clients, by the arguments, the environment and the route to etcd.

    Raises:
        ConfigurationError: It cannot be known, or clients elsewhere could not use it.
    """
    return choose_address(
        port=port,
        host=host,
        address=address,
        environ=os.environ,
        etcd=config.addresses,
        route=lambda: _local_host(config),
    )


def choose_address(
    *,
    port: int | None,
    host: str | None,
    address: str | None,
    environ: Mapping[str, str],
    etcd: Sequence[str],
    route: Callable[[], str],
) -> str:
    """The ``host:port`` to tell clients.  Pure, but for ``route``: asked where nobody else knows.

    Args:
        port: The port on which the server listens; None takes the one in ``ETCD_GRPC_ADVERTISE``.
        host: The host that clients shall use; None: see the head of this file.
        address: ``host:port`` in place of the two.
        environ: The environment.
        etcd: ``host:port`` of etcd's members: an address of this machine alone is of use only if all of
            them are here too.
        route: Returns the local address from which etcd is reached.

    Raises:
        ConfigurationError: It cannot be known, or clients elsewhere could not use it.
    """
    if address is not None:
        if port is not None or host is not None:
            raise ConfigurationError("pass either address, or port and host")
        told = _host_and_port(address, "address")
    else:
        told = _told(host, environ, route, port)
    chosen = f"{told.host}:{_port(port, told.port)}"
    why = unusable(told.host)
    if not why and is_loopback(chosen) and not all(map(is_loopback, etcd)):
        why = f"loopback, but etcd ({', '.join(etcd)}) is on another host, where clients may be too"
    if why:
        raise ConfigurationError(
            f"{shown(chosen)} (from {told.source}) cannot be advertised: it is {why}: {_WAY_OUT}"
        )
    return chosen


def _told(
    host: str | None, environ: Mapping[str, str], route: Callable[[], str], port: int | None
) -> _Told:
    if host is not None:
        return _Told(_host(host, "host"), None, "host")
    variable = environ.get(_VARIABLE, "")
    if variable:
        alone = variable.endswith("]") or ":" not in variable
        return (
            _Told(_host(variable, _VARIABLE), None, _VARIABLE)
            if alone
            else _host_and_port(variable, _VARIABLE)
        )
    _port(port, None)  # before the route is looked for
    pod_ip = environ.get(_POD_IP, "")
    if pod_ip and ip_of(pod_ip) is None:
        raise ConfigurationError(
            f"{_POD_IP} is {shown(pod_ip)!r}, which is no IP address: set it by Kubernetes' downward "
            f"API (fieldPath: status.podIP), or {_WAY_OUT}"
        )
    if pod_ip:
        return _Told(_host(pod_ip, _POD_IP), None, _POD_IP)
    source = "the route to etcd"
    return _Told(_host(route(), source), None, source)


def _port(given: int | None, told: int | None) -> int:
    port = told if given is None else given
    if port is None:
        raise ConfigurationError(f"neither port nor address is given: {_WHICH_PORT}")
    if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= 65535:
        raise ConfigurationError(f"port {port!r} is not in 1..65535: {_WHICH_PORT}")
    return port


def _host(text: str, source: str) -> str:
    """``text`` as the host of an address: a name, an IPv4 address, or an IPv6 address in brackets."""
    _check_form(text, source)
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if ":" in bare and ip_of(bare) is None:
        raise ConfigurationError(
            f"{source} {shown(text)!r} is neither a name nor an IP address: give the host without a "
            "port, such as '10.0.0.5', 'greeter-0.greeter' or '2001:db8::1'"
        )
    host = f"[{bare}]" if ":" in bare else text
    try:
        split_address(f"{host}:1")
    except ConfigurationError:
        raise ConfigurationError(
            f"{source} {shown(text)!r} is neither a name nor an IP address: {_WAY_OUT}"
        ) from None
    return host


def _host_and_port(text: str, source: str) -> _Told:
    _check_form(text, source)
    try:
        host, port = split_address(text)
    except ConfigurationError as error:
        raise ConfigurationError(f"{source}: {error}") from None
    return _Told(host, port, source)


def _check_form(text: str, source: str) -> None:
    """Refuse what no host looks like, in words of its own."""
    if not isinstance(text, str):
        raise ConfigurationError(f"{source} is {text!r}; it must be text")
    if "://" in text or "/" in text:
        raise ConfigurationError(
            f"{source} {shown(text)!r} has a scheme or a path: give the host and the port alone, such "
            "as 10.0.0.5:50051"
        )
    if any(c.isspace() or not c.isprintable() for c in text):
        raise ConfigurationError(
            f"{source} {shown(text)!r} has white space or control characters: {_WAY_OUT}"
        )


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
            f"cannot find out which local address reaches etcd at {host} ({error}): {_WAY_OUT}"
        ) from error
    return local
