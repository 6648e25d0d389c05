"""Target URIs: ``etcd:///service`` names a service in the etcd given by argument or environment.

The form is gRPC's name syntax, ``scheme://authority/endpoint``.  Service names may contain slashes
(``etcd:///prod/greeter``) and percent-escapes.  The authority and query are reserved: they are
refused, not ignored, so that a typo cannot silently change what a program talks to.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from etcd_grpc.errors import ConfigurationError
from etcd_grpc.model import check_service, shown

__all__ = ["Target", "parse_target"]


@dataclass(frozen=True, slots=True)
class Target:
    """A parsed target: the service to find."""

    service: str

    def __str__(self) -> str:
        return f"etcd:///{self.service}"


def parse_target(target: str) -> Target:
    """Parse ``etcd:///service``.

    Raises:
        ConfigurationError: ``target`` is malformed; the message shows the right form.
    """
    form = "use etcd:///SERVICE, such as etcd:///helloworld.Greeter"
    if not isinstance(target, str):
        raise ConfigurationError(f"target is a {type(target).__name__}, no text; {form}")
    said = shown(target)
    if not target.isprintable() or target != target.strip():
        raise ConfigurationError(f"target {said!r} has spaces or control characters; {form}")
    try:
        parts = urlsplit(target)
    except ValueError:  # its text may hold a password
        raise ConfigurationError(f"target {said!r} is malformed; {form}") from None
    if parts.scheme != "etcd":
        raise ConfigurationError(f"target {said!r} does not start with etcd://; {form}")
    if parts.netloc:
        raise ConfigurationError(
            f"target {said!r} has {shown(parts.netloc)!r} where nothing is expected (three slashes!); "
            f"{form}, and name the etcd members by etcd=... or ETCDCTL_ENDPOINTS"
        )
    if parts.query or parts.fragment:
        raise ConfigurationError(f"target {said!r} has a query or fragment; {form}")
    if not parts.path.startswith("/") or len(parts.path) < 2:
        raise ConfigurationError(f"target {said!r} names no service; {form}")
    try:
        return Target(check_service(unquote(parts.path[1:], errors="strict")))
    except ConfigurationError as error:
        raise ConfigurationError(f"target {said!r}: {error}; {form}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"target {said!r} is not UTF-8; {form}") from None
