"""Target URIs: ``etcd:///service`` names a service in the etcd given by argument or environment.

The form is gRPC's name syntax, ``scheme://authority/endpoint``.  Service names may contain slashes
(``etcd:///prod/greeter``) and percent-escapes.  A query, ``etcd:///greeter?version=v2&zone=a``, narrows
the service to the instances that match: ``version`` and ``zone`` are theirs, any other name is one of
their metadata.  The authority is reserved: it is refused, not ignored, so that a typo cannot silently
change what a program talks to.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from etcd_grpc.errors import ConfigurationError
from etcd_grpc.model import check_service, shown

__all__ = ["Target", "parse_target"]

_MOST = 16


@dataclass(frozen=True, slots=True)
class Target:
    """A parsed target: the service to find.

    Attributes:
        service: Its name.
        query: What its instances must have, as pairs; empty: all are meant.
    """

    service: str
    query: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        query = "&".join(f"{name}={value}" for name, value in self.query)
        return f"etcd:///{self.service}{'?' if query else ''}{query}"


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
    if parts.fragment:
        raise ConfigurationError(f"target {said!r} has a fragment; {form}")
    if not parts.path.startswith("/") or len(parts.path) < 2:
        raise ConfigurationError(f"target {said!r} names no service; {form}")
    try:
        query = _query(parts.query)
        return Target(check_service(unquote(parts.path[1:], errors="strict")), query)
    except ConfigurationError as error:
        raise ConfigurationError(f"target {said!r}: {error}; {form}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"target {said!r} is not UTF-8; {form}") from None


def _query(text: str) -> tuple[tuple[str, str], ...]:
    """Pairs of what an instance must have.

    Raises:
        ConfigurationError: It is malformed, or names something twice or without a value.
        UnicodeDecodeError: It is not UTF-8.
    """
    if not text:
        return ()
    try:
        pairs = parse_qsl(
            text, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=_MOST
        )
    except UnicodeDecodeError:
        raise
    except ValueError:
        pairs = []
    names = {name for name, _ in pairs}
    if not pairs or len(names) < len(pairs) or not all(name and value for name, value in pairs):
        raise ConfigurationError(
            f"the query {text[:80]!r} is not name=value, joined by '&', each name once "
            f"(at most {_MOST}), such as version=v2&zone=a"
        )
    return tuple(pairs)
