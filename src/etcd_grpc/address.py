"""Which registered addresses are believed: who can write to etcd must not choose what we connect to.

The rule: an address that no instance of a service has (link-local, where clouds keep the keys of their
machines; multicast; unspecified) is refused always, and loopback unless etcd itself is there; a list
of networks narrows the rest.  A host *name* is left to DNS, except where networks are listed: what it
resolves to is known only to the connection, so it is refused there.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from etcd_grpc.errors import ConfigurationError
from etcd_grpc.model import ip_of, shown, split_address

__all__ = ["AddressPolicy", "is_loopback"]

IP = ipaddress.IPv4Address | ipaddress.IPv6Address

# Where clouds serve the keys of their machines, beyond 169.254.0.0/16 and fe80::/10.
_METADATA = frozenset({"fd00:ec2::254", "100.100.100.200", "192.0.0.192", "metadata.google.internal"})


class AddressPolicy:
    """Says why an address is refused, if it is.

    Args:
        networks: CIDR networks; empty: no restriction beyond the rule.
        loopback: Whether 127.0.0.0/8, ::1 and ``localhost`` are believed without being listed.

    Raises:
        ConfigurationError: One of the networks is none.
    """

    def __init__(self, networks: Iterable[str] = (), *, loopback: bool = False) -> None:
        try:
            self._networks = tuple(ipaddress.ip_network(network) for network in networks)
        except ValueError as error:
            raise ConfigurationError(
                f"allowed_networks: {error}; use CIDR networks such as 10.0.0.0/8"
            ) from None
        self._loopback = loopback

    def refusal(self, address: str) -> str:
        """Why ``host:port`` is refused; "" if it is not.

        Raises:
            ConfigurationError: It is not of that form.
        """
        host, _ = split_address(address)
        ip = ip_of(host)
        kind = self._name(host) if ip is None else self._ip(ip)
        if not kind:
            return ""
        return (
            f"the address {shown(address)!r} is refused: it is {kind}. If instances are there, list "
            "their network in allowed_networks (ETCD_GRPC_ALLOWED_NETWORKS)"
        )

    def _name(self, host: str) -> str:
        if _is_local_name(host):
            return "" if self._loopback else "loopback"
        if host.casefold().rstrip(".") in _METADATA:
            return "a metadata service"
        return "a name, where networks are listed" if self._networks else ""

    def _ip(self, ip: IP) -> str:
        if any(ip in network for network in self._networks):
            return ""
        if ip.is_loopback:
            return "" if self._loopback else "loopback"
        if ip.is_link_local or ip.is_multicast or ip.is_unspecified or str(ip) in _METADATA:
            return "link-local, multicast, unspecified or a metadata service"
        return "in none of the listed networks" if self._networks else ""


def is_loopback(address: str) -> bool:
    """Whether ``host:port`` is on this machine's loopback interface.

    Raises:
        ConfigurationError: It is not of that form.
    """
    host = split_address(address)[0]
    ip = ip_of(host)
    return ip.is_loopback if ip is not None else _is_local_name(host)


def _is_local_name(host: str) -> bool:
    name = host.casefold().rstrip(".")
    return name == "localhost" or name.endswith(".localhost")
