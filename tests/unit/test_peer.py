"""Who a client is, by its certificate, and what it may call."""

from __future__ import annotations

from pathlib import Path

import pytest

from etcd_grpc.errors import ConfigurationError
from etcd_grpc.server.peer import Allowed, AllowedClients, Peer, peer_of
from etcd_grpc.server.tls import ServerTls

CALLER = Peer("spiffe://example.org/ns/a/caller", ("caller.test",))


def test_a_client_is_named_by_its_spiffe_id_and_dns_names_never_by_its_common_name() -> None:
    context = {
        "x509_common_name": [b"root"],
        "peer_uri": [b"spiffe://example.org/a"],
        "peer_dns": [b"One.Test", b"two.test"],
    }
    assert peer_of(context) == Peer("spiffe://example.org/a", ("one.test", "two.test"))
    assert str(peer_of(context)) == "spiffe://example.org/a, DNS one.test, DNS two.test"
    assert peer_of({"x509_common_name": [b"root"]}) == Peer()
    assert str(Peer()) == "no SPIFFE ID and no DNS name"


@pytest.mark.parametrize(
    "uris", [[], [b"https://example.org"], [b"spiffe://example.org/a", b"spiffe://example.org/b"]]
)
def test_what_is_no_spiffe_id_is_none(uris: list[bytes]) -> None:
    assert not peer_of({"peer_uri": uris}).spiffe


@pytest.mark.parametrize(
    ("allowed", "permitted"),
    [
        (["caller.test"], True),
        (["CALLER.test"], True),
        (["other.test"], False),
        (["spiffe://example.org/ns/a/caller"], True),
        (["spiffe://example.org/ns/a/*"], True),
        (["spiffe://example.org/*"], True),
        (["spiffe://example.org/ns/b/*"], False),
        (["spiffe://example.org/ns/a/caller/*"], False),
        (["spiffe://example.org/ns/a/call"], False),
        (["spiffe://example.com/*"], False),
    ],
)
def test_names_of_those_who_may_call(allowed: list[str], permitted: bool) -> None:
    assert Allowed(allowed).permits("/p.S/M", CALLER) is permitted
    assert not Allowed(allowed).permits("/p.S/M", Peer())


def test_a_wildcard_in_a_clients_certificate_is_nobody() -> None:
    assert not Allowed(["caller.test"]).permits("/p.S/M", Peer("", ("*.test",)))


def test_the_most_specific_entry_applies_and_what_none_covers_is_refused() -> None:
    allowed = Allowed({"p.S": ["other.test"], "/p.S/M": ["caller.test"], "q.S": ["caller.test"]})
    assert allowed.permits("/p.S/M", CALLER)
    assert not allowed.permits("/p.S/N", CALLER)
    assert allowed.permits("/q.S/M", CALLER)
    assert not allowed.permits("/r.S/M", CALLER)
    assert Allowed({"p.S": ["other.test"], "*": ["caller.test"]}).permits("/r.S/M", CALLER)


def test_health_checks_are_open_unless_they_are_named() -> None:
    check = "/grpc.health.v1.Health/Check"
    assert Allowed(["other.test"]).permits(check, CALLER)
    assert not Allowed({"grpc.health.v1.Health": ["other.test"]}).permits(check, CALLER)


@pytest.mark.parametrize(
    "allowed",
    ["caller.test", {"*": "caller.test"}, [], {}, {"*": []}, [""], ["*"], ["*.test"], ["spiffe://*"]],
)
def test_what_is_malformed_is_refused(allowed: AllowedClients) -> None:
    with pytest.raises(ConfigurationError, match="allowed_clients"):
        Allowed(allowed)


def test_clients_can_only_be_told_apart_by_certificates() -> None:
    with pytest.raises(ConfigurationError, match="client_ca"):
        ServerTls(Path("cert"), Path("key"), allowed_clients=["caller.test"])
