"""Who a client is, by its certificate, and what it may call.  Pure.

A client is named by the SPIFFE ID in its certificate (a URI) and by the DNS names there; its common
name is never looked at.  gRPC has verified the certificate against the authority before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from etcd_grpc.errors import ConfigurationError

__all__ = ["Allowed", "AllowedClients", "Peer", "peer_of"]

# Names for all methods; or for each method, service or "*".
AllowedClients = Sequence[str] | Mapping[str, Sequence[str]]

_SPIFFE = "spiffe://"
_HEALTH = "grpc.health.v1.Health"


@dataclass(frozen=True, slots=True)
class Peer:
    """What a client's certificate says.

    Attributes:
        spiffe: Its SPIFFE ID; "" if it has none, or, which SPIFFE forbids, several URIs.
        dns: Its DNS names, in lower case.
    """

    spiffe: str = ""
    dns: tuple[str, ...] = ()

    def __str__(self) -> str:
        names = [*([self.spiffe] if self.spiffe else []), *(f"DNS {name}" for name in self.dns)]
        return ", ".join(names) or "no SPIFFE ID and no DNS name"


def peer_of(context: Mapping[str, Iterable[bytes] | None]) -> Peer:
    """The client of a call, from what ``ServicerContext.auth_context`` returns."""

    def texts(name: str) -> list[str]:
        return [item.decode("utf-8", "backslashreplace") for item in context.get(name) or ()]

    uris = texts("peer_uri")
    spiffe = uris[0] if len(uris) == 1 and uris[0].startswith(_SPIFFE) else ""
    return Peer(spiffe, tuple(name.lower() for name in texts("peer_dns")))


class Allowed:
    """Which clients may call what.

    Args:
        allowed: Names, for every method; or a mapping from "/package.Service/Method",
            "package.Service" or "*" to names, of which the most specific applies; what it does not
            cover is refused.  A name is a DNS name, a SPIFFE ID, or a SPIFFE ID that ends in "/*" for
            all below it.  Health checks (``grpc.health.v1``) may be made by everybody who got in,
            unless they are named: the balancers of all clients depend on them.

    Raises:
        ConfigurationError: A name is malformed, or nobody is allowed.
    """

    def __init__(self, allowed: AllowedClients) -> None:
        if isinstance(allowed, str):
            raise ConfigurationError(f"allowed_clients must be a list of names, not {allowed!r}")
        table = dict(allowed) if isinstance(allowed, Mapping) else {"*": allowed}
        self._table = {method: _Names.of(names) for method, names in table.items()}
        if not any(self._table.values()):
            raise ConfigurationError("allowed_clients names nobody: every call would be refused")

    def permits(self, method: str, peer: Peer) -> bool:
        """Whether ``peer`` may call ``/package.Service/Method``."""
        service = method.removeprefix("/").rpartition("/")[0]
        for key in (method, service):
            if key in self._table:
                return self._table[key].have(peer)
        if service == _HEALTH:
            return True
        return "*" in self._table and self._table["*"].have(peer)


@dataclass(frozen=True, slots=True)
class _Names:
    exact: frozenset[str]
    below: tuple[str, ...]  # SPIFFE IDs that end in a slash

    @classmethod
    def of(cls, names: Sequence[str]) -> _Names:
        if isinstance(names, str):
            raise ConfigurationError(f"allowed_clients must be lists of names, not {names!r}")
        for name in names:
            plain = name.removesuffix("/*") if name.startswith(_SPIFFE) else name
            if plain in {"", _SPIFFE, _SPIFFE.removesuffix("/")} or "*" in plain:
                raise ConfigurationError(
                    f"allowed_clients: {name!r} is neither a DNS name, nor a SPIFFE ID (which may end "
                    "in /*)"
                )
        below = tuple(name.removesuffix("*") for name in names if name.endswith("/*"))
        exact = (n if n.startswith(_SPIFFE) else n.lower() for n in names if not n.endswith("/*"))
        return cls(frozenset(exact), below)

    def __bool__(self) -> bool:
        return bool(self.exact or self.below)

    def have(self, peer: Peer) -> bool:
        if peer.spiffe and (peer.spiffe in self.exact or peer.spiffe.startswith(self.below)):
            return True
        return not self.exact.isdisjoint(peer.dns)
