"""Calls made before an endpoint is there: each one's fault is its own; hedged ones behave as others."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from tests.support.calls import free_port

import etcd_grpc

CODE = grpc.StatusCode
HEDGED = {"methodConfig": [{"name": [{}], "hedgingPolicy": {"maxAttempts": 2, "hedgingDelay": "5s"}}]}


@pytest.fixture(params=[None, HEDGED], ids=["plain", "hedged"])
def config(request):
    return request.param


def token():
    return grpc.metadata_call_credentials(lambda _, give: give((("authorization", "x"),), None))


def test_a_call_that_cannot_be_made_keeps_no_other_waiting(etcd, service, echoes, announce, config):
    announce(echoes[0].address)
    with etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd, service_config=config) as channel:
        call = channel.unary_unary("/echo/UnaryUnary")
        bad = call.future(b"x", timeout=10, metadata=(("number", 5),))
        good = [call.future(b"x", timeout=10) for _ in range(5)]
        assert all(g.result().endswith(b" x") for g in good)
        with pytest.raises(grpc.RpcError) as caught:
            bad.result()
        assert caught.value.code() is CODE.INTERNAL


async def test_an_asyncio_call_that_cannot_be_made_raises_where_it_is_awaited(
    etcd, service, echoes, announce, config
):
    announce(echoes[0].address)
    async with etcd_grpc.aio.insecure_channel(
        f"etcd:///{service}", etcd=etcd, service_config=config
    ) as channel:
        call = channel.unary_unary("/echo/UnaryUnary")
        told: list[object] = []
        bad = call(b"x", timeout=10, credentials=token())
        bad.add_done_callback(told.append)
        good = [call(b"x", timeout=10) for _ in range(5)]
        assert all(reply.endswith(b" x") for reply in await asyncio.gather(*good))
        with pytest.raises(grpc.aio.UsageError, match="secure channels"):
            await bad
        assert bad.done()
        assert not bad.cancelled()
        assert told == [bad]
        with pytest.raises(grpc.aio.UsageError, match="secure channels"):
            await call(b"x", timeout=10, credentials=token())


async def test_closing_cancels_calls_that_wait_and_calls_under_way(
    etcd, service, echoes, announce, config
):
    announce(echoes[0].address)
    channel = etcd_grpc.aio.insecure_channel(f"etcd:///{service}", etcd=etcd, service_config=config)
    assert await channel.unary_unary("/echo/UnaryUnary")(b"x", timeout=10)
    under_way = channel.unary_unary("/echo/Slow")(b"30", timeout=60)
    await asyncio.sleep(0.1)
    await channel.close()
    other = etcd_grpc.aio.insecure_channel(f"etcd:///{service}.none", etcd=etcd, service_config=config)
    waits = other.unary_unary("/echo/Slow")(b"30", timeout=60, wait_for_ready=True)
    await asyncio.sleep(0.1)
    await other.close()
    for call in (under_way, waits):
        with pytest.raises(asyncio.CancelledError):
            await call
        assert call.cancelled()
        assert await call.code() is CODE.CANCELLED


async def test_the_text_of_a_call_says_how_it_ended(etcd, service, echoes, announce, config):
    announce(echoes[0].address)
    async with etcd_grpc.aio.insecure_channel(
        f"etcd:///{service}", etcd=etcd, service_config=config
    ) as channel:
        call = channel.unary_unary("/echo/Abort")(b"ABORTED mine", timeout=10)
        assert str(call).endswith(" object>")
        with pytest.raises(grpc.aio.AioRpcError):
            await call
        assert " of RPC that terminated with:\n" in str(call)
        assert "mine" in repr(call)


def test_where_nobody_listens_hedged_calls_fail_as_others_do(etcd, service, announce, config):
    announce(f"127.0.0.1:{free_port()}")
    with etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd, service_config=config) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/echo/UnaryUnary")(b"x", timeout=10)
        assert caught.value.code() is CODE.UNAVAILABLE
