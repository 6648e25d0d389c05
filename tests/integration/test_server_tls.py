"""Servers with TLS: which clients they take, and certificates that are replaced while they run."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.support.calls import who
from tests.support.certificates import Folder
from tests.support.processes import EchoServer
from tests.support.waiting import wait_until

import etcd_grpc
from etcd_grpc.server.tls import ServerTls
from etcd_grpc.testing import DevAuthority

SPIFFE = "spiffe://example.org/caller"


@pytest.fixture
def authority(tmp_path: Path) -> DevAuthority:
    made = DevAuthority(tmp_path / "certs")
    made.issue("server", ["127.0.0.1"])
    return made


def caller(authority: DevAuthority, *names: str, spiffe: str = "") -> grpc.ChannelCredentials:
    issued = authority.issue("client", names, spiffe=spiffe)
    return grpc.ssl_channel_credentials(
        authority.ca.read_bytes(), issued.key.read_bytes(), issued.cert.read_bytes()
    )


def tls(authority: DevAuthority, **arguments: Any) -> ServerTls:
    folder = authority.ca.parent
    return ServerTls(folder / "server.pem", folder / "server.key", client_ca=authority.ca, **arguments)


class Handlers(grpc.GenericRpcHandler):
    """All four shapes, synchronous or asynchronous; nobody is to get in who may not."""

    def __init__(self, *, coroutines: bool) -> None:
        self.calls: list[str] = []
        self._coroutines = coroutines

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        method = handler_call_details.method
        if "Stream" in method:
            make = (
                grpc.stream_stream_rpc_method_handler
                if "StreamStream" in method
                else grpc.unary_stream_rpc_method_handler
            )
            return make(self._async_stream if self._coroutines else self._stream)
        make = (
            grpc.stream_unary_rpc_method_handler
            if "ManyUnary" in method
            else grpc.unary_unary_rpc_method_handler
        )
        return make(self._async_unary if self._coroutines else self._unary)

    def _unary(self, request: Any, context: Any) -> bytes:
        self.calls.append("unary")
        return b"in"

    def _stream(self, request: Any, context: Any) -> Iterator[bytes]:
        self.calls.append("stream")
        yield b"in"

    async def _async_unary(self, request: Any, context: Any) -> bytes:
        return self._unary(request, context)

    async def _async_stream(self, request: Any, context: Any) -> AsyncIterator[bytes]:
        self.calls.append("stream")
        yield b"in"


SHAPES = ["/a/UnaryUnary", "/a/UnaryStream", "/a/ManyUnary", "/a/StreamStream"]


def call(channel: grpc.Channel, method: str) -> bytes:
    """A call in the method's shape; what came first."""
    match method.rpartition("/")[2]:
        case "UnaryUnary" | "Check":
            return channel.unary_unary(method)(b"", timeout=10)
        case "UnaryStream":
            return next(channel.unary_stream(method)(b"", timeout=10))
        case "ManyUnary":
            return channel.stream_unary(method)(iter([b""]), timeout=10)
    return next(channel.stream_stream(method)(iter([b""]), timeout=10))


def check(handlers: Handlers, address: str, authority: DevAuthority, method: str) -> None:
    """The caller gets in, and somebody else is refused, by name."""
    with grpc.secure_channel(address, caller(authority, spiffe=SPIFFE)) as channel:
        assert call(channel, method) == b"in"
    assert len(handlers.calls) == 1
    with grpc.secure_channel(address, caller(authority, "other.test")) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            call(channel, method)
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert caught.value.details() == f"{method} is not permitted to DNS other.test"
        assert call(channel, "/grpc.health.v1.Health/Check") == b"in"
    assert len(handlers.calls) == 2, "only the health check came in"


@pytest.mark.parametrize("method", SHAPES)
def test_clients_are_told_apart_by_their_certificates(authority, method):
    handlers = Handlers(coroutines=False)
    secured = tls(authority, allowed_clients=[SPIFFE])
    server = grpc.server(
        futures.ThreadPoolExecutor(4), handlers=[handlers], interceptors=secured.interceptors()
    )
    with secured.followed() as credentials:
        port = server.add_secure_port("127.0.0.1:0", credentials)
        server.start()
        check(handlers, f"127.0.0.1:{port}", authority, method)
        server.stop(None).wait()


@pytest.mark.parametrize("method", SHAPES)
@pytest.mark.parametrize("coroutines", [True, False])
async def test_clients_are_told_apart_in_asyncio_too(authority, method, coroutines):
    handlers = Handlers(coroutines=coroutines)
    secured = tls(authority, allowed_clients=[SPIFFE])
    server = grpc.aio.server(handlers=[handlers], interceptors=secured.aio_interceptors())
    with secured.followed() as credentials:
        port = server.add_secure_port("127.0.0.1:0", credentials)
        await server.start()
        await asyncio.to_thread(check, handlers, f"127.0.0.1:{port}", authority, method)
        await server.stop(None)


def shown(address: str) -> str:
    """The certificate that a new connection gets."""
    host, _, port = address.rpartition(":")
    return ssl.get_server_certificate((host, int(port)), timeout=10)


def test_new_connections_get_the_certificate_on_disk_and_old_ones_stay(tmp_path):
    import trustme

    folder = Folder(tmp_path / "mounted", trustme.CA())
    folder.rotate("127.0.0.1")
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(EchoServer(tls=folder.path))
        trusted = grpc.ssl_channel_credentials(folder.ca.read_bytes())
        channel = stack.enter_context(grpc.secure_channel(server.address, trusted))
        echo = channel.unary_unary("/echo/UnaryUnary")
        assert who(echo(b"x", timeout=10)) == server.address
        stream = channel.stream_stream("/echo/StreamStream")
        more = threading.Event()

        def requests() -> Iterator[bytes]:
            yield b"1"
            more.wait(30)
            yield b"2"

        answers = stream(requests(), timeout=60)
        assert next(answers).endswith(b" 1")
        for whole in (True, False):
            before = shown(server.address)
            folder.rotate("127.0.0.1", whole=whole)
            wait_until(lambda: shown(server.address) != before, "the new certificate")  # noqa: B023
            assert shown(server.address).encode().split() == folder.cert.read_bytes().split()
        more.set()
        assert next(answers).endswith(b" 2"), "a stream outlives the rotations"


def test_a_server_that_is_gone_looks_at_files_no_more(authority):
    server = grpc.server(futures.ThreadPoolExecutor(1))
    server.add_secure_port("127.0.0.1:0", tls(authority).credentials())
    assert "etcd-grpc-files" in {thread.name for thread in threading.enumerate()}
    del server
    gc.collect()
    wait_until(
        lambda: "etcd-grpc-files" not in {t.name for t in threading.enumerate()}, "the thread's end"
    )


def served(authority: DevAuthority, service: str, etcd: str) -> None:
    """A call through ``serve``, and another client's that is refused."""
    channels = {
        name: etcd_grpc.secure_channel(f"etcd:///{service}", credentials, etcd=etcd)
        for name, credentials in {
            "known": caller(authority, spiffe=SPIFFE),
            "unknown": caller(authority, "other.test"),
        }.items()
    }
    try:
        assert channels["known"].unary_unary("/a/UnaryUnary")(b"", timeout=10) == b"in"
        with pytest.raises(grpc.RpcError, match=r"not permitted to DNS other\.test"):
            channels["unknown"].unary_unary("/a/UnaryUnary")(b"", timeout=10)
    finally:
        for channel in channels.values():
            channel.close()


def test_serve_checks_clients_and_follows_its_files_until_it_returns(authority, service, etcd):
    def ready(life: etcd_grpc.Lifecycle) -> None:
        assert "etcd-grpc-files" in {thread.name for thread in threading.enumerate()}
        try:
            served(authority, service, etcd)
        finally:
            life.drain(wait=False)

    etcd_grpc.serve(
        lambda server: server.add_generic_rpc_handlers([Handlers(coroutines=False)]),
        service=service,
        host="127.0.0.1",
        port=0,
        credentials=tls(authority, allowed_clients=[SPIFFE]),
        etcd=etcd,
        on_ready=ready,
    )
    assert "etcd-grpc-files" not in {thread.name for thread in threading.enumerate()}
