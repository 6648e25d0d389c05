"""Which names a server's certificate may be for.  Pure.

A service is called by its name, so that is what its certificate should say: it stays true wherever an
instance runs, and nobody who can write into etcd can choose it.  A certificate for the very address
that is called is taken too.  Each is a full check by gRPC; nothing is ever skipped.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection

__all__ = ["BY_ADDRESS", "NAME_OPTIONS", "names_to_check"]

# Stands for the address that is called.
BY_ADDRESS = ""

# Options by which the application itself says what is checked.
NAME_OPTIONS = frozenset({"grpc.ssl_target_name_override", "grpc.default_authority"})
_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = re.compile(rf"{_LABEL}(\.{_LABEL})*")


def names_to_check(service: str, server_name: str | None, options: Collection[str]) -> tuple[str, ...]:
    """The names that are tried, in this order; ``BY_ADDRESS`` is one.

    Args:
        service: The service's name.
        server_name: The only one, if the application says so.
        options: Names of the channel options that the application passes; it may choose there, too.
    """
    if server_name is not None:
        return (server_name,)
    if not NAME_OPTIONS.isdisjoint(options) or not _can_be_certified(service):
        return (BY_ADDRESS,)
    return (service, BY_ADDRESS)


def _can_be_certified(service: str) -> bool:
    """Whether a certificate can have this as a DNS name."""
    try:
        ipaddress.ip_address(service)
    except ValueError:
        return len(service) <= 253 and _HOST.fullmatch(service) is not None
    return False
