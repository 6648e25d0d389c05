"""The nouns of this package: what is registered, what is found, and how the found set changes.

All of them are immutable values.  They carry no behaviour beyond their own validation, so every layer
may use them.
"""

from __future__ import annotations

import enum
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from etcd_grpc.errors import ConfigurationError

__all__ = ["Change", "Endpoint", "Instance", "Put", "Remove", "Snapshot", "Status", "Update"]

_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252})?|\[[0-9A-Fa-f:.]{2,45}(?:%[A-Za-z0-9]+)?\]")
# What the C library takes for an IPv4 address though it is written as none ("0", "127.1", "0x7f.1"),
# and slips of the pen such as "10.0.0.256".  One long number may be a name: containers have such.
_NUMBERS = re.compile(
    r"(?:(?:0[xX][0-9A-Fa-f]*|\d+)\.){1,3}(?:0[xX][0-9A-Fa-f]*|\d+)|0[xX][0-9A-Fa-f]+|\d{1,10}",
    re.ASCII,
)


class Status(enum.StrEnum):
    """What an instance says of itself; only one that is ``SERVING`` gets calls.

    ``NOT_SERVING``: not at the moment.  ``DRAINING``: never again, I am about to leave.
    """

    SERVING = "serving"
    NOT_SERVING = "not_serving"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One entry that was found under a service.

    Attributes:
        key: The etcd key; an endpoint is identified by it.
        address: ``host:port``, IPv6 hosts in brackets.
        id: The registering process's own identity, ``""`` when another program wrote the entry.
        weight: Relative share, 0 or more; 1 is normal.
        zone: Free text, ``""`` when unknown.
        version: Version of the service, ``""`` when unknown.
        status: ``SERVING`` endpoints get calls.
        protocol: ``"grpc"`` unless the entry says otherwise.
        metadata: The registering user's own values.
        identified: Whoever answers there tells its ``id`` (``identity.py``), so a port that another
            process has taken over is noticed.
        revision: etcd's ``mod_revision`` of the entry.
    """

    key: str
    address: str
    id: str = ""
    weight: float = 1.0
    zone: str = ""
    version: str = ""
    status: Status = Status.SERVING
    protocol: str = "grpc"
    metadata: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    revision: int = 0
    identified: bool = False

    @property
    def takes_calls(self) -> bool:
        """Whether calls may go there, by what it says of itself."""
        return self.status is Status.SERVING and self.weight > 0


@dataclass(frozen=True, slots=True)
class Instance:
    """What a server registers: one address of one service.

    Attributes:
        named: The id was chosen, not made up: it is unique in the service, and etcd's key is made of it
            rather than of the address.
        identified: The server answers health checks with this id.

    Raises:
        ConfigurationError: The service name, address, weight or metadata cannot be registered.
    """

    service: str
    address: str
    id: str
    weight: float = 1.0
    zone: str = ""
    version: str = ""
    status: Status = Status.SERVING
    metadata: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    named: bool = False
    identified: bool = False

    def __post_init__(self) -> None:
        check_service(self.service)
        check_advertised(self.address)
        if self.named:
            check_id(self.id)
        for name in ("id", "zone", "version"):
            value = getattr(self, name)
            if not isinstance(value, str):
                raise ConfigurationError(f"{name} is {value!r}; it must be text")
        if not isinstance(self.weight, int | float) or not 0 <= self.weight <= 1e6:
            raise ConfigurationError(
                f"weight {self.weight!r} is not in 0..1000000; 1 is normal, 0 takes no calls"
            )


@dataclass(frozen=True, slots=True)
class Put:
    """An endpoint appeared or was changed."""

    endpoint: Endpoint

    @property
    def key(self) -> str:
        return self.endpoint.key


@dataclass(frozen=True, slots=True)
class Remove:
    """The endpoint under ``key`` is gone."""

    key: str


Change = Put | Remove


@dataclass(frozen=True, slots=True)
class Update:
    """Changes that belong together: one etcd revision, or the difference found by a relist.

    Attributes:
        changes: In etcd's order.
        revision: The etcd revision up to which the set is now known.
    """

    changes: tuple[Change, ...]
    revision: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All endpoints of a service at one moment.

    Attributes:
        service: The service's name.
        endpoints: By key, in the order in which they were found.
        revision: etcd's revision of this view; 0 before the first answer.
        connected: False while no etcd member can be followed: the view may be old.
        stale_s: Seconds since etcd could last be followed; 0 while it can.
        held: Keys of endpoints that vanished together with most others, and are kept for a while.
        rejected: How many entries stand under the service that are no endpoints, or refused ones.
    """

    service: str
    endpoints: Mapping[str, Endpoint]
    revision: int
    connected: bool
    stale_s: float = 0.0
    held: frozenset[str] = frozenset()
    rejected: int = 0


def check_service(name: str) -> str:
    """Return ``name`` if it can be a service's name in etcd, else raise ConfigurationError."""
    if not name or name.strip("/") != name or "//" in name:
        raise ConfigurationError(
            f"service name {name!r} is empty or has stray slashes; "
            "use a name such as 'helloworld.Greeter' or 'prod/greeter'"
        )
    if len(name) > 512 or not name.isprintable():
        raise ConfigurationError(
            f"service name {name[:80]!r} is longer than 512 characters or has control characters"
        )
    return name


def check_id(name: str) -> str:
    """Return ``name`` if it can be an instance's id in etcd, else raise ConfigurationError."""
    if not isinstance(name, str) or not name.isprintable() or "/" in name or not 1 <= len(name) <= 200:
        raise ConfigurationError(
            f"id {str(name)[:80]!r} is not 1..200 printable characters without a slash"
        )
    return name


def split_address(address: str) -> tuple[str, int]:
    """Split ``host:port`` (IPv6 in brackets) into its parts.

    Raises:
        ConfigurationError: It is not of that form, or the port is not in 1..65535.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not _is_host(host) or not (port.isascii() and port.isdigit()):
        raise ConfigurationError(
            f"address {shown(address)!r} is not host:port "
            "(IPv6 in brackets, such as '[2001:db8::1]:50051')"
        )
    if len(port) > 5 or not 1 <= int(port) <= 65535:
        raise ConfigurationError(f"port {port[:20]} in address {shown(address)!r} is not in 1..65535")
    return host, int(port)


def ip_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The IP address that ``host`` (IPv6 with or without brackets) is; None if it is a name."""
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def shown(text: str) -> str:
    """``text`` as an error may show it: short, and without the password before an ``@``."""
    scheme, separator, rest = text.rpartition("://")
    secret, at, host = rest.rpartition("@")
    return f"{scheme}{separator}{'***@' if at and secret else ''}{host}"[:80]


def _is_host(host: str) -> bool:
    if host.startswith("["):
        address = ip_of(host)
        return address is not None and ":" in host and bool(_HOST.fullmatch(host))
    return bool(_HOST.fullmatch(host))


def check_advertised(address: str) -> str:
    """Return ``address`` if clients can connect to it, else raise ConfigurationError."""
    host, _ = split_address(address)
    why = unusable(host)
    if why:
        raise ConfigurationError(
            f"{address} cannot be advertised: {host} is {why}. Pass the address that clients can "
            "reach, as host=... or address=..., or set ETCD_GRPC_ADVERTISE"
        )
    return address


def unusable(host: str) -> str:
    """Why no client elsewhere can connect to ``host`` (IPv6 in brackets); "" if it can."""
    ip = ip_of(host)
    if ip is None:
        return "neither an IPv4 address nor a name" if _NUMBERS.fullmatch(host) else ""
    if ip.is_unspecified or (ip.version == 4 and int(ip) < 1 << 24):
        return "an address to listen on, not one to connect to"
    if ip.is_multicast:
        return "a multicast address"
    if ip.is_link_local:
        return "a link-local address, which means something else on every link"
    if str(ip) == "255.255.255.255":
        return "the broadcast address"
    return "an address with a zone, which only this machine knows" if "%" in host else ""
