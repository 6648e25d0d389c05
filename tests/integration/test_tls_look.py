"""The reason why TLS with a server fails, in words, for servers of gRPC's."""

from __future__ import annotations

import datetime as dt
import socket
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import grpc
import pytest
import trustme
from tests.support.calls import free_port
from tests.support.certificates import Folder

from etcd_grpc.tls.look import Ours, why_refused
from etcd_grpc.tls.material import CertificateFiles

LONG_AGO = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
NAMES = ("greeter", "")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA(organization_name="ours")


@pytest.fixture(scope="module")
def other() -> trustme.CA:
    return trustme.CA(organization_name="theirs")


class Place:
    """A server whose certificate is chosen, and the folder with ours."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self._servers: list[grpc.Server] = []

    def serve(self, leaf: trustme.LeafCert | None, client_ca: trustme.CA | None = None) -> str:
        server = grpc.server(futures.ThreadPoolExecutor(1))
        self._servers.append(server)
        if leaf is None:
            port = server.add_insecure_port("127.0.0.1:0")
        else:
            pair = (leaf.private_key_pem.bytes(), leaf.cert_chain_pems[0].bytes())
            roots = None if client_ca is None else client_ca.cert_pem.bytes()
            port = server.add_secure_port(
                "127.0.0.1:0", grpc.ssl_server_credentials([pair], roots, client_ca is not None)
            )
        server.start()
        return f"127.0.0.1:{port}"

    def why(self, address: str, *, certificate: bool = False) -> str:
        files = self.folder.files if certificate else CertificateFiles(self.folder.ca, None, None)
        return why_refused(address, Ours(files, NAMES), 5)

    def stop(self) -> None:
        for server in self._servers:
            server.stop(None).wait()


@pytest.fixture
def place(tmp_path: Path, authority: trustme.CA) -> Iterator[Place]:
    folder = Folder(tmp_path / "ours", authority)
    folder.rotate("caller")
    made = Place(folder)
    yield made
    made.stop()


@pytest.mark.parametrize("name", ["127.0.0.1", "greeter", "GREETER"])
def test_where_nothing_is_wrong_nothing_is_said(place, authority, name):
    assert not place.why(place.serve(authority.issue_cert(name)))
    assert not place.why(place.serve(authority.issue_cert(name), authority), certificate=True)


def test_an_expired_certificate_is_told_with_its_end_and_names(place, authority):
    address = place.serve(authority.issue_cert("greeter", not_after=LONG_AGO))
    assert place.why(address).startswith(
        f"the certificate of {address} expired: notAfter is 2020-01-01 00:00 UTC; it is for greeter;"
    )


def test_a_certificate_for_another_name_is_told_with_the_names_that_it_has(place, authority):
    address = place.serve(authority.issue_cert("10.9.9.9", "other.test"))
    said = place.why(address)
    assert f"the certificate of {address} is not for greeter or 127.0.0.1" in said
    assert "it is for 10.9.9.9, other.test" in said


def test_an_unknown_authority_is_named(place, other):
    address = place.serve(other.issue_cert("greeter"))
    said = place.why(address)
    assert f"the certificate of {address} was signed by" in said
    assert "O=theirs" in said
    assert str(place.folder.ca) in said


def test_a_server_without_tls_is_told(place):
    address = place.serve(None)
    assert place.why(address) == f"{address} does not speak TLS"


def test_a_server_that_wants_a_certificate_is_told(place, authority):
    address = place.serve(authority.issue_cert("greeter"), authority)
    assert place.why(address).endswith("it wants a client's certificate")


def test_a_certificate_of_ours_that_is_refused_is_named(place, authority, other):
    address = place.serve(authority.issue_cert("greeter"), other)
    said = place.why(address, certificate=True)
    assert f"{address} refuses our certificate {place.folder.cert}" in said
    assert "O=ours" in said


def test_an_expired_certificate_of_ours_is_told_with_its_end(place, authority):
    place.folder.rotate("caller", end=LONG_AGO)
    address = place.serve(authority.issue_cert("greeter"), authority)
    assert place.why(address, certificate=True).endswith("expired: notAfter is 2020-01-01 00:00 UTC")


def test_with_grpcs_own_credentials_what_the_certificate_shows_is_told(place, authority, other):
    address = place.serve(other.issue_cert("greeter"))
    assert not why_refused(address, Ours(None, NAMES), 5), "only gRPC knows whom it trusts"
    address = place.serve(authority.issue_cert("greeter", not_after=LONG_AGO))
    assert "notAfter is 2020-01-01" in why_refused(address, Ours(None, NAMES), 5)


def test_who_cannot_be_reached_or_says_nothing_is_left_to_others(place):
    assert not place.why(f"127.0.0.1:{free_port()}")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        assert not why_refused(address, Ours(place.folder.files, NAMES), 0.2)
