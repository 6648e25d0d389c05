"""Channels with TLS: which certificates they take, and their own, replaced while calls go on."""

from __future__ import annotations

import contextlib
import datetime as dt
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from tests.support.calls import free_port, who
from tests.support.certificates import Folder
from tests.support.load import Load
from tests.support.processes import EchoServer
from tests.support.waiting import wait_until

import etcd_grpc
from etcd_grpc.telemetry import events
from etcd_grpc.tls import ChannelTls

Make = Callable[..., EchoServer]


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def mounted(tmp_path: Path, authority: trustme.CA) -> Callable[..., Folder]:
    """A folder with a certificate for these names."""

    def make(name: str, *names: str, signer: trustme.CA = authority) -> Folder:
        folder = Folder(tmp_path / name, signer)
        folder.rotate(*names)
        return folder

    return make


@pytest.fixture
def serve(mounted: Callable[..., Folder], announce: Callable[[str], str]) -> Iterator[Make]:
    """A registered echo server with a certificate for these names."""
    with contextlib.ExitStack() as stack:

        def start(*names: str, mutual: bool = False, **arguments: Any) -> EchoServer:
            folder = mounted(f"server-{time.monotonic_ns()}", *names, **arguments)
            server = stack.enter_context(EchoServer(tls=folder.path, mutual=mutual))
            announce(server.address)
            return server

        yield start


def answering(channel: etcd_grpc.Channel, calls: int = 8) -> set[str]:
    echo = channel.unary_unary("/echo/UnaryUnary")
    return {who(echo(b"x", timeout=10)) for _ in range(calls)}


@pytest.fixture
def trusted(mounted: Callable[..., Folder]) -> ChannelTls:
    return ChannelTls(mounted("trusted", "unused").ca)


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time to learn why an instance is refused, for a machine that needs it."""
    for constant in ("diagnosis._PATIENCE_S", "last_errors._PATIENCE_S", "security._LOOK_S"):
        monkeypatch.setattr(f"etcd_grpc.channel.{constant}", 20.0)


def test_a_certificate_for_the_services_name_or_for_the_address_is_taken(serve, service, trusted, etcd):
    servers = {serve(service).address, serve("127.0.0.1").address, serve(service, "10.9.9.9").address}
    with etcd_grpc.secure_channel(f"etcd:///{service}", trusted, etcd=etcd) as channel:
        wait_until(lambda: answering(channel) == servers, "all three", 30)


async def test_the_same_in_asyncio(serve, service, trusted, etcd):
    servers = {serve(service).address, serve("127.0.0.1").address}
    async with etcd_grpc.aio.secure_channel(f"etcd:///{service}", trusted, etcd=etcd) as channel:
        echo, seen = channel.unary_unary("/echo/UnaryUnary"), set()
        deadline = time.monotonic() + 30
        while seen != servers and time.monotonic() < deadline:
            seen.add(who(await echo(b"x", timeout=10)))
    assert seen == servers


@pytest.mark.parametrize("names", ["service", "127.0.0.1"])
def test_grpcs_own_credentials_are_held_to_the_same_names(serve, service, mounted, etcd, names):
    server = serve(service if names == "service" else names)
    credentials = grpc.ssl_channel_credentials(mounted("trusted", "unused").ca.read_bytes())
    with etcd_grpc.secure_channel(f"etcd:///{service}", credentials, etcd=etcd) as channel:
        assert answering(channel, 2) == {server.address}


def test_the_first_call_fails_fast_only_after_every_name_was_tried(serve, service, trusted, etcd):
    """A certificate for the address: the failure of the first name is not the end."""
    server = serve("127.0.0.1")
    for _ in range(5):
        with etcd_grpc.secure_channel(f"etcd:///{service}", trusted, etcd=etcd) as channel:
            reply = channel.unary_unary("/echo/UnaryUnary")(b"x", timeout=10, wait_for_ready=False)
            assert who(reply) == server.address


def test_only_the_name_that_was_chosen_is_taken(serve, service, trusted, etcd):
    right = serve("greeter.internal")
    serve(service, "127.0.0.1")
    chosen = ChannelTls(trusted.ca_cert, server_name="greeter.internal")
    with etcd_grpc.secure_channel(f"etcd:///{service}", chosen, etcd=etcd) as channel:
        assert answering(channel) == {right.address}


@pytest.mark.parametrize("option", ["grpc.ssl_target_name_override", "grpc.default_authority"])
def test_an_option_of_the_applications_wins(serve, service, trusted, etcd, option):
    right = serve("greeter.internal")
    serve(service)
    with etcd_grpc.secure_channel(
        f"etcd:///{service}", trusted, [(option, "greeter.internal")], etcd=etcd
    ) as channel:
        assert answering(channel) == {right.address}


def refusals(seen: list[etcd_grpc.Event]) -> list[events.InstanceRefused]:
    return [event for event in seen if isinstance(event, events.InstanceRefused)]


LONG_AGO = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)


@contextlib.contextmanager
def careless(leaf: trustme.LeafCert) -> Iterator[str]:
    """A server of gRPC's own, which does not look at its certificate."""
    server = grpc.server(futures.ThreadPoolExecutor(1))
    pair = (leaf.private_key_pem.bytes(), leaf.cert_chain_pems[0].bytes())
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("expired", "expired: notAfter is 2020-01-01 00:00 UTC"),
        ("another name", "is not for test.* or 127.0.0.1; it is for 10.9.9.9, another.service"),
        (
            "another authority",
            "was signed by .*O=theirs.*, an authority that .*trusted.* does not have",
        ),
        ("no certificate of ours", "it wants a client's certificate"),
        ("no TLS", "does not speak TLS"),
    ],
)
@pytest.mark.parametrize("wait_for_ready", [False, True])
@pytest.mark.usefixtures("patience")
def test_what_is_refused_is_told_with_its_reason(
    serve, service, trusted, etcd, announce, authority, case, said, wait_for_ready
):
    with contextlib.ExitStack() as stack:
        match case:
            case "expired":
                announce(
                    stack.enter_context(careless(authority.issue_cert(service, not_after=LONG_AGO)))
                )
            case "another name":
                serve("10.9.9.9", "another.service")
            case "another authority":
                serve(service, "127.0.0.1", signer=trustme.CA(organization_name="theirs"))
            case "no certificate of ours":
                serve(service, mutual=True)
            case "no TLS":
                announce(stack.enter_context(EchoServer()).address)
        channel = stack.enter_context(
            etcd_grpc.secure_channel(f"etcd:///{service}", trusted, etcd=etcd)
        )
        if wait_for_ready:  # the call ends at its deadline, whether the reason is known by then or not
            seen: list[etcd_grpc.Event] = []
            with etcd_grpc.listen(seen.append):
                channel.subscribe(lambda _: None, try_to_connect=True)
                wait_until(lambda: refusals(seen), "the reason", 30)
        call = channel.unary_unary("/echo/UnaryUnary")
        with pytest.raises(grpc.RpcError) as caught:
            call(b"x", timeout=0.5 if wait_for_ready else 30, wait_for_ready=wait_for_ready)
    code = grpc.StatusCode.DEADLINE_EXCEEDED if wait_for_ready else grpc.StatusCode.UNAVAILABLE
    assert caught.value.code() is code
    assert re.search(said, caught.value.details()), caught.value.details()


@pytest.mark.usefixtures("patience")
def test_one_instance_among_others_that_is_refused_is_told_to_listeners(serve, service, trusted, etcd):
    seen: list[etcd_grpc.Event] = []
    good, bad = serve(service), serve("another.service")
    with (
        etcd_grpc.listen(seen.append),
        etcd_grpc.secure_channel(f"etcd:///{service}", trusted, etcd=etcd) as channel,
    ):
        assert answering(channel) == {good.address}
        refused = wait_until(lambda: refusals(seen), "an event")
        assert answering(channel) == {good.address}
    assert refused[0].address == bad.address
    assert "another.service" in str(refused[0])


def test_a_spiffe_id_is_no_name_for_a_client(service, announce, trusted, etcd, tmp_path):
    """gRPC's C core checks DNS names and addresses only, whatever the application asks for."""
    from etcd_grpc.testing import DevAuthority

    authority = DevAuthority(tmp_path / "spiffe")
    identity = f"spiffe://example.org/{service}"
    issued = authority.issue("server", spiffe=identity)
    folder = Folder(tmp_path / "mounted", trustme.CA())
    folder.put(issued.cert.read_bytes(), issued.key.read_bytes(), ca=authority.ca.read_bytes())
    tls = ChannelTls(authority.ca, server_name=identity)
    with EchoServer(tls=folder.path) as server:
        announce(server.address)
        with etcd_grpc.secure_channel(f"etcd:///{service}", tls, etcd=etcd) as channel:
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary("/echo/UnaryUnary")(b"x", timeout=20)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_files_that_cannot_be_used_are_told_when_the_channel_is_made(service, tmp_path, etcd):
    tls = ChannelTls(tmp_path / "missing.pem")
    for world in (etcd_grpc, etcd_grpc.aio):
        with pytest.raises(etcd_grpc.ConfigurationError, match=r"missing\.pem"):
            world.secure_channel(f"etcd:///{service}", tls, etcd=etcd)


def pem(folder: Folder) -> bytes:
    return b"".join(folder.cert.read_bytes().split())


def test_a_rotation_reaches_every_connection_and_no_call_fails(serve, service, mounted, etcd):
    servers = {serve(service, mutual=True).address for _ in range(3)}
    ours = mounted("ours", "caller")
    tls = ChannelTls(ours.ca, ours.cert, ours.key)
    with Load(service, etcd, rate=150, timeout_s=20, credentials=tls) as load:
        wait_until(lambda: set(load.answers) == servers, "all three answer", 30)
        peer = load.channel.unary_unary("/echo/Peer")
        requests, more = threading.Event(), threading.Event()

        def ask() -> Iterator[bytes]:
            yield b"1"
            requests.set()
            more.wait(60)
            yield b"2"

        stream = load.channel.stream_stream("/echo/StreamStream")(ask(), timeout=120)
        assert next(stream).endswith(b" 1")
        for _ in range(2):
            ours.rotate("caller")
            wait_until(
                lambda: all(b"".join(peer(b"", timeout=10).split()) == pem(ours) for _ in range(12)),
                "the new certificate at every server",
                30,
            )
        more.set()
        assert next(stream).endswith(b" 2"), "a stream stays where it began"
        load.assert_clean()


async def test_a_rotation_reaches_asyncio_channels_too(serve, service, mounted, etcd):
    serve(service, mutual=True)
    ours = mounted("ours", "caller")
    tls = ChannelTls(ours.ca, ours.cert, ours.key)
    async with etcd_grpc.aio.secure_channel(f"etcd:///{service}", tls, etcd=etcd) as channel:
        peer = channel.unary_unary("/echo/Peer")
        assert b"".join((await peer(b"", timeout=10)).split()) == pem(ours)
        ours.rotate("caller")
        deadline = time.monotonic() + 30
        while b"".join((await peer(b"", timeout=10)).split()) != pem(ours):
            assert time.monotonic() < deadline, "the new certificate did not arrive"


@pytest.mark.usefixtures("patience")
async def test_asyncio_channels_tell_the_reason_too(serve, service, trusted, etcd):
    serve("another.test")
    async with etcd_grpc.aio.secure_channel(f"etcd:///{service}", trusted, etcd=etcd) as channel:
        with pytest.raises(grpc.aio.AioRpcError, match=r"it is for another\.test"):
            await channel.unary_unary("/echo/UnaryUnary")(b"x", timeout=30)


@pytest.mark.usefixtures("patience")
def test_a_name_that_the_application_chose_is_the_one_that_is_told(serve, service, trusted, etcd):
    serve(service)
    with etcd_grpc.secure_channel(
        f"etcd:///{service}", trusted, [("grpc.default_authority", "greeter.internal")], etcd=etcd
    ) as channel:
        with pytest.raises(grpc.RpcError, match=r"is not for greeter\.internal; it is for test"):
            channel.unary_unary("/echo/UnaryUnary")(b"x", timeout=30)


def test_an_instance_that_is_down_is_no_matter_of_certificates(
    service, announce, trusted, etcd, caplog
):
    address = f"127.0.0.1:{free_port()}"
    announce(address)
    with etcd_grpc.secure_channel(f"etcd:///{service}", trusted, etcd=etcd) as channel:
        with pytest.raises(grpc.RpcError, match=re.escape(address)):
            channel.unary_unary("/echo/UnaryUnary")(b"x", timeout=30)
    assert "cannot be connected" not in caplog.text


@pytest.mark.usefixtures("patience")
def test_with_grpcs_own_credentials_an_unknown_authority_is_told(serve, service, mounted, etcd):
    serve(service, signer=trustme.CA())
    credentials = grpc.ssl_channel_credentials(mounted("trusted", "unused").ca.read_bytes())
    with etcd_grpc.secure_channel(f"etcd:///{service}", credentials, etcd=etcd) as channel:
        with pytest.raises(
            grpc.RpcError, match="CERTIFICATE_VERIFY_FAILED: unable to get local issuer"
        ):
            channel.unary_unary("/echo/UnaryUnary")(b"x", timeout=30)


FORK = """
import os, sys, time
import etcd_grpc
from etcd_grpc.tls import ChannelTls

service, etcd, ca, cert, key = sys.argv[1:]
channel = etcd_grpc.secure_channel(f"etcd:///{service}", ChannelTls(ca, cert, key), etcd=etcd)
peer = channel.unary_unary("/echo/Peer")
def seen():
    return b"".join(peer(b"", timeout=10).split())
before = seen()
def follow():
    deadline = time.monotonic() + 30
    while seen() == before:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    channel.close()
child = os.fork()
if not child:
    assert seen() == before
    print("rotate", flush=True)
    follow()
    sys.exit(7)
input()  # until the files are replaced
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 7, status
follow()
print("done", flush=True)
"""


def test_after_a_fork_both_processes_follow_the_files(serve, service, mounted, etcd):
    serve(service, mutual=True)
    ours = mounted("ours", "caller")
    program = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", FORK, service, etcd, ours.ca, ours.cert, ours.key],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with program:
        assert program.stdout is not None
        lines = iter(program.stdout)
        while next(lines) != "rotate\n":
            pass
        ours.rotate("caller")
        assert program.stdin is not None
        program.stdin.write("\n")
        program.stdin.flush()
        assert next(lines) == "done\n"
        assert program.wait(timeout=60) == 0
