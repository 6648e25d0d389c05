"""The error of a call that reached nobody says why, in both worlds; and so does ``explain``."""

from __future__ import annotations

import asyncio
from concurrent import futures

import grpc
import pytest
from tests.support.calls import RETRY, free_port, who
from tests.support.processes import EchoServer
from tests.support.waiting import wait_until

import etcd_grpc
from etcd_grpc.channel import last_errors
from etcd_grpc.testing import DevAuthority


@pytest.fixture(autouse=True)
def _patience(monkeypatch):
    """A call that fails waits for the reason, however slow this machine is."""
    monkeypatch.setattr(last_errors, "_PATIENCE_S", 15.0)


def test_refused_connection_is_told(etcd, service, announce):
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    for address in addresses:
        announce(address)
    with etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel:
        call = channel.unary_unary("/echo/UnaryUnary")
        for _ in range(2):  # asked, and known
            with pytest.raises(grpc.RpcError) as caught:
                call(b"x", timeout=20)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            details = caught.value.details()
            assert "none of the 2 instances" in details
            assert "; last error: " in details
            assert "refused" in details.lower()
            assert any(address in details.split("last error")[1] for address in addresses)

        def told() -> list[str]:
            return [row.why for row in channel.explain().endpoints]

        wait_until(lambda: all("refused" in why.lower() for why in told()), "explained")


async def test_refused_connection_is_told_in_asyncio(etcd, service, announce):
    address = f"127.0.0.1:{free_port()}"
    announce(address)
    async with etcd_grpc.aio.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel:
        for _ in range(2):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary("/echo/UnaryUnary")(b"x", timeout=20)
            details = caught.value.details()
            assert f"the only instance of service {service} is not connected ({address})" in details
            assert "refused" in details.split("last error: ")[1].lower()
        (row,) = channel.explain().endpoints
        assert "refused" in row.why.lower()


@pytest.mark.parametrize("world", ["sync", "aio"])
def test_client_without_tls_is_told_what_grpc_says_of_a_server_with_it(
    etcd, service, announce, tmp_path, world
):
    """It is not much, but it names the address, and that the connection was made and lost."""
    authority = DevAuthority(tmp_path)
    issued = authority.issue("server", ["127.0.0.1"])
    credentials = grpc.ssl_server_credentials([(issued.key.read_bytes(), issued.cert.read_bytes())])
    server = grpc.server(futures.ThreadPoolExecutor(2))
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    announce(f"127.0.0.1:{port}")

    async def in_asyncio() -> str:
        async with etcd_grpc.aio.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary("/echo/UnaryUnary")(b"x", timeout=20)
            return caught.value.details()

    try:
        if world == "aio":
            details = asyncio.run(in_asyncio())
        else:
            with etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel:
                with pytest.raises(grpc.RpcError) as caught:
                    channel.unary_unary("/echo/UnaryUnary")(b"x", timeout=20)
                details = caught.value.details()
        assert f":{port}" in details.split("last error: ")[1]
    finally:
        server.stop(None).wait()


def test_final_error_of_a_call_that_was_sent_again_says_why(etcd, service):
    with (
        EchoServer(register=service, etcd=etcd, ttl_s=30) as only,
        etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd, service_config=RETRY) as channel,
    ):
        call = channel.unary_unary("/echo/UnaryUnary")
        assert who(call(b"x", timeout=20)) == only.address
        future = channel.unary_unary("/echo/Slow").future(b"30", timeout=60)
        wait_until(lambda: channel.explain().endpoints[0].in_flight == 1, "under way")
        only.kill()
        assert future.code() is grpc.StatusCode.UNAVAILABLE
        assert only.address in future.details()
        assert "refused" in future.details().lower()


def test_nothing_is_told_of_an_instance_that_is_connected_again(etcd, service, announce):
    port = free_port()
    announce(f"127.0.0.1:{port}")
    with etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel:
        call = channel.unary_unary("/echo/UnaryUnary")
        with pytest.raises(grpc.RpcError):
            call(b"x", timeout=20)
        with EchoServer(port=port):
            assert call(b"x", timeout=60, wait_for_ready=True)
            wait_until(lambda: channel.explain().endpoints[0].why == "", "explained")
