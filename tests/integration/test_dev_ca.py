"""Certificates for development: what is written, what is kept, and that gRPC and Python take them."""

from __future__ import annotations

import shutil
import ssl
import stat
from pathlib import Path

import pytest
from tests.integration.test_cli import run

from etcd_grpc.certificates import facts_of
from etcd_grpc.devcluster import DevAuthority
from etcd_grpc.errors import ConfigurationError
from etcd_grpc.tls.material import CertificateFiles

SPIFFE = "spiffe://example.org/caller"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_command_writes_pairs_that_belong_together(tmp_path: Path) -> None:
    folder = tmp_path / "certs"
    server, client = ["--name", "greeter", "--name", "127.0.0.1"], ["--client", "caller.test"]
    status, out, err = run("dev-ca", str(folder), *server, *client, "--spiffe", SPIFFE)
    assert (status, err) == (0, "")
    assert len(out.splitlines()) == 3
    assert "a new authority" in out
    for name, names in (
        ("server", ("greeter", "127.0.0.1")),
        ("client", ("caller.test", SPIFFE)),
    ):
        files = CertificateFiles(folder / "ca.pem", folder / f"{name}.pem", folder / f"{name}.key")
        facts = facts_of(files.load().cert or b"")
        assert facts is not None
        assert facts.names == names
        assert mode(folder / f"{name}.key") == 0o600
    assert mode(folder / "ca.key") == 0o600


def test_a_second_call_keeps_the_authority_and_renews_the_certificate(tmp_path: Path) -> None:
    run("dev-ca", str(tmp_path), "--name", "greeter")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    status, out, _ = run("dev-ca", str(tmp_path), "--name", "greeter", "--days", "1")
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert status == 0
    assert "as it was" in out
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {"server.pem", "server.key"}
    assert set(after) == set(before)


@pytest.mark.parametrize("lost", ["ca.key", "ca.pem"])
def test_half_an_authority_is_left_as_it_is(tmp_path: Path, lost: str) -> None:
    DevAuthority(tmp_path)
    (tmp_path / lost).unlink()
    with pytest.raises(ConfigurationError, match=rf"authority without {lost}"):
        DevAuthority(tmp_path)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_foreign_key_is_refused(tmp_path: Path) -> None:
    DevAuthority(tmp_path / "one")
    DevAuthority(tmp_path / "two")
    shutil.copy(tmp_path / "two" / "ca.key", tmp_path / "one" / "ca.key")
    with pytest.raises(ConfigurationError, match="no authority of ours"):
        DevAuthority(tmp_path / "one")


@pytest.mark.parametrize(
    ("names", "spiffe", "said"),
    [
        (["grüße"], "", "no host name"),
        ([], "", "needs a name"),
        ([], "https://example.org", "no SPIFFE ID"),
    ],
)
def test_a_name_that_is_none_is_refused(
    tmp_path: Path, names: list[str], spiffe: str, said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        DevAuthority(tmp_path).issue("server", names, spiffe=spiffe)


@pytest.mark.parametrize("file", ["", "ca", "../server", "a/b"])
def test_a_certificate_takes_no_other_files_place(tmp_path: Path, file: str) -> None:
    with pytest.raises(ConfigurationError, match="name of a certificate"):
        DevAuthority(tmp_path).issue(file, ["greeter"])


def test_the_command_needs_somebody_to_certify(tmp_path: Path) -> None:
    status, _, err = run("dev-ca", str(tmp_path / "certs"))
    assert (status, "--name" in err) == (1, True)
    assert not (tmp_path / "certs").exists()


def test_strict_verification_takes_them(tmp_path: Path) -> None:
    authority = DevAuthority(tmp_path)
    issued = authority.issue("server", ["greeter.test"])
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(issued.cert, issued.key)
    client = ssl.create_default_context(cafile=authority.ca)
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    ends = [ssl.MemoryBIO(), ssl.MemoryBIO()]
    ours = client.wrap_bio(*ends, server_hostname="greeter.test")
    theirs = server.wrap_bio(*reversed(ends), server_side=True)
    for side in (ours, theirs, ours, theirs):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    assert ours.getpeercert()["subjectAltName"] == (("DNS", "greeter.test"),)
