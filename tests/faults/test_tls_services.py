"""Rows 13 to 15 for the connections between clients and servers, with real servers under load."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import ssl
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path

import grpc
import pytest
import trustme
from tests.integration.conftest import announce, etcd, raw
from tests.support.certificates import Folder
from tests.support.load import Load
from tests.support.processes import EchoServer
from tests.support.waiting import wait_until

import etcd_grpc
from etcd_grpc.server.tls import ServerTls
from etcd_grpc.telemetry import events
from etcd_grpc.tls import ChannelTls

__all__ = ["announce", "etcd", "raw"]

PAST = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def theirs(tmp_path: Path, authority: trustme.CA, service: str) -> Folder:
    """The servers' certificate, for the service's name."""
    made = Folder(tmp_path / "theirs", authority)
    made.rotate(service)
    return made


@pytest.fixture
def ours(tmp_path: Path, authority: trustme.CA) -> Folder:
    """The clients' certificate."""
    made = Folder(tmp_path / "ours", authority)
    made.rotate("caller")
    return made


@pytest.fixture
def servers(theirs: Folder, announce: Callable[[str], str]) -> Iterator[list[EchoServer]]:
    """Three servers that want a client's certificate, all with the same files."""
    with contextlib.ExitStack() as stack:
        made = [stack.enter_context(EchoServer(tls=theirs.path, mutual=True)) for _ in range(3)]
        for server in made:
            announce(server.address)
        yield made


@pytest.fixture
def tls(ours: Folder) -> ChannelTls:
    return ChannelTls(ours.ca, ours.cert, ours.key)


@pytest.fixture
def load(servers: list[EchoServer], service: str, etcd: str, tls: ChannelTls) -> Iterator[Load]:
    with Load(service, etcd, rate=300, threads=3, credentials=tls) as made:
        addresses = {server.address for server in servers}
        wait_until(lambda: set(made.answers) == addresses, "all servers answer")
        yield made


def pem(content: bytes | str) -> bytes:
    return b"".join((content.encode() if isinstance(content, str) else content).split())


def shown(server: EchoServer) -> bytes:
    """The certificate in a new handshake, without a certificate of ours (which is asked for later)."""
    return pem(ssl.get_server_certificate(("127.0.0.1", server.port), timeout=10))


def seen(load: Load) -> bytes:
    """Our certificate, as a server has it."""
    return pem(load.channel.unary_unary("/echo/Peer")(b"", timeout=10))


def everybody_has(load: Load, ours: Folder) -> bool:
    return all(seen(load) == pem(ours.cert.read_bytes()) for _ in range(12))


async def asyncio_calls(service: str, etcd: str, tls: ChannelTls, ended: asyncio.Event) -> int:
    """Calls from an asyncio channel until the end; how many, none of which failed."""
    calls = 0
    async with etcd_grpc.aio.secure_channel(f"etcd:///{service}", tls, etcd=etcd) as channel:
        echo = channel.unary_unary("/echo/UnaryUnary")
        while not ended.is_set():
            await echo(b"x", timeout=10)
            calls += 1
            await asyncio.sleep(0.005)
    return calls


def test_row_14_certificates_of_servers_and_clients_are_rotated_under_load(
    servers, load, ours, theirs, service, recovers
):
    for round_ in range(3):
        theirs.rotate(service, whole=round_ < 2)
        began = time.monotonic()
        recovers(
            14,
            "a server's certificate replaced: until every new handshake shows it",
            lambda: {shown(server) for server in servers} == {pem(theirs.cert.read_bytes())},
            2,
            began,
        )
        ours.rotate("caller", whole=round_ < 2)
        began = time.monotonic()
        recovers(
            14,
            "a client's certificate replaced: until every server has it",
            lambda: everybody_has(load, ours),
            2,
            began,
        )
    load.assert_clean()


async def test_row_14_asyncio_clients_lose_no_call_either(servers, ours, theirs, service, etcd, tls):
    ended = asyncio.Event()
    calls = asyncio.create_task(asyncio_calls(service, etcd, tls, ended))
    for _ in range(3):
        await asyncio.sleep(1)  # the point: rotations while calls are made
        theirs.rotate(service)
        ours.rotate("caller")
    await asyncio.sleep(2)
    ended.set()
    assert await calls > 100


def test_row_14_another_authority_takes_over_step_by_step(servers, load, ours, theirs, service, told):
    """As docs/tls.md says: trust both, sign by the new one, trust the new one alone."""
    old, new = theirs.authority.cert_pem.bytes(), trustme.CA()

    def rotations() -> int:
        return sum(isinstance(event, events.CertificateRotated) for event in told)

    def put(folder: Folder, name: str, signer: trustme.CA, ca: bytes) -> None:
        leaf = signer.issue_cert(name)
        folder.put(leaf.cert_chain_pems[0].bytes(), leaf.private_key_pem.bytes(), ca=ca)

    both = old + new.cert_pem.bytes()
    steps = ((theirs.authority, both), (new, both), (new, new.cert_pem.bytes()))
    for number, (signer, ca) in enumerate(steps, start=1):
        put(ours, "caller", signer, ca)
        put(theirs, service, signer, ca)
        # Files that are read in the moment of their exchange are read once more.
        wait_until(lambda: rotations() >= number, "our files are followed")  # noqa: B023
        wait_until(lambda: everybody_has(load, ours), "every connection is made anew")
        wait_until(
            lambda: {shown(server) for server in servers} == {pem(theirs.cert.read_bytes())},
            "the servers' files are followed",
        )
    load.assert_clean()


@pytest.mark.parametrize("case", ["mismatch", "expired"])
def test_row_15_a_pair_that_cannot_be_used_leaves_the_last_good_one(
    case, servers, load, ours, theirs, service, told, recovers, etcd, tmp_path
):
    good = shown(servers[0]), seen(load)
    if case == "mismatch":
        ours.mismatch("caller")
        theirs.mismatch(service)
    else:
        ours.rotate("caller", end=PAST)
        theirs.rotate(service, end=PAST)

    def rejected() -> list[events.CertificateRejected]:
        return [event for event in told if isinstance(event, events.CertificateRejected)]

    recovers(
        15,
        f"a client's certificate replaced by one that cannot be used ({case}): until it is told",
        rejected,
        2,
        time.monotonic(),
    )
    # New connections are made with the servers' last good pair; ours is the one that was there.
    another = Folder(tmp_path / "another", ours.authority)
    another.rotate("another")
    fresh_tls = ChannelTls(another.ca, another.cert, another.key)
    with Load(service, etcd, credentials=fresh_tls) as fresh:
        wait_until(lambda: len(fresh.answers) == 3, "new connections are taken")
        fresh.assert_clean()
    assert {shown(server) for server in servers} == {good[0]}
    assert seen(load) == good[1]
    ours.rotate("caller")
    theirs.rotate(service)
    wait_until(lambda: everybody_has(load, ours), "the next good pair is used")
    wait_until(
        lambda: {shown(server) for server in servers} == {pem(theirs.cert.read_bytes())},
        "by the servers, too",
    )
    assert len(rejected()) == 1
    assert rejected()[0].count == 1
    load.assert_clean()


def test_row_15_a_server_tells_its_listeners_and_serves_on(theirs, told, authority):
    with ServerTls(theirs.cert, theirs.key).followed() as credentials:
        server = grpc.server(futures.ThreadPoolExecutor(1))
        port = server.add_secure_port("127.0.0.1:0", credentials)
        server.start()
        try:
            before = ssl.get_server_certificate(("127.0.0.1", port), timeout=10)
            theirs.mismatch("127.0.0.1")
            rejected = wait_until(
                lambda: [e for e in told if isinstance(e, events.CertificateRejected)], "told"
            )
            assert "does not belong to the certificate" in str(rejected[0])
            assert ssl.get_server_certificate(("127.0.0.1", port), timeout=10) == before
        finally:
            server.stop(None).wait()


@pytest.mark.parametrize(
    ("case", "said"),
    [("expired", "expired: notAfter is 2020-01-01 00:00 UTC"), ("another name", "it is for 10.9.9.9")],
)
def test_row_13_a_certificate_that_is_no_good_is_refused_and_named(
    case, said, service, authority, announce, etcd, ours
):
    leaf = (
        authority.issue_cert(service, not_after=PAST)
        if case == "expired"
        else authority.issue_cert("10.9.9.9")
    )
    server = grpc.server(futures.ThreadPoolExecutor(1))  # gRPC's own does not look at its certificate
    pair = (leaf.private_key_pem.bytes(), leaf.cert_chain_pems[0].bytes())
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    server.start()
    announce(f"127.0.0.1:{port}")
    try:
        with etcd_grpc.secure_channel(f"etcd:///{service}", ChannelTls(ours.ca), etcd=etcd) as channel:
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary("/echo/UnaryUnary")(b"x", timeout=30)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert said in caught.value.details()
    finally:
        server.stop(None).wait()
