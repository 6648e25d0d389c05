"""The state of an asyncio channel, and waiting for servers that are not there yet."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from tests.support.calls import free_port
from tests.support.contract import CHANNELS, ContractServer

CODE, STATE = grpc.StatusCode, grpc.ChannelConnectivity
OPTIONS = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 100)]


@pytest.fixture(params=CHANNELS)
def nowhere(request, place):
    """A world where nobody listens, and its first port."""
    ports = [free_port() for _ in range(3 if request.param == "three" else 1)]
    return place(request.param, [f"127.0.0.1:{port}" for port in ports]), ports[0]


async def reach(channel, wanted):
    async with asyncio.timeout(20):
        while (state := channel.get_state(try_to_connect=True)) is not wanted:
            await channel.wait_for_state_change(state)


async def test_a_channel_is_idle_until_it_is_asked_to_connect(world):
    async with world.aio_channel() as channel:
        assert channel.get_state() is STATE.IDLE
        await asyncio.sleep(0.05)
        assert channel.get_state() is STATE.IDLE
        await reach(channel, STATE.READY)
        assert channel.get_state() is STATE.READY


async def test_a_state_that_is_over_is_not_waited_for(world):
    async with world.aio_channel() as channel:
        await channel.channel_ready()
        await asyncio.wait_for(channel.wait_for_state_change(STATE.IDLE), 10)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(channel.wait_for_state_change(STATE.READY), 0.05)


async def test_channel_ready_can_be_awaited_by_many_and_given_up(nowhere):
    world, port = nowhere
    async with world.aio_channel(options=OPTIONS) as channel:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(channel.channel_ready(), 0.1)
        waiting = [asyncio.create_task(channel.channel_ready()) for _ in range(3)]
        with ContractServer("--port", str(port)) as server:
            await asyncio.to_thread(server.ready)
            await asyncio.wait_for(asyncio.gather(*waiting), 20)


async def test_closing_ends_the_waiting_for_a_state(world):
    channel = world.aio_channel()
    await channel.channel_ready()
    waiting = asyncio.create_task(channel.wait_for_state_change(STATE.READY))
    await asyncio.sleep(0)
    await channel.close()
    await asyncio.wait([waiting], timeout=10)
    assert waiting.done()
    assert (
        waiting.cancelled()
        or waiting.exception() is None
        or (isinstance(waiting.exception(), grpc.aio.UsageError))
    )


async def test_a_closed_channel_has_shut_down(world):
    channel = world.aio_channel()
    await channel.channel_ready()
    await channel.close()
    assert channel.get_state() is STATE.SHUTDOWN
    assert channel.get_state(try_to_connect=True) is STATE.SHUTDOWN


async def test_a_channel_that_was_never_used_shuts_down_too(world):
    channel = world.aio_channel()
    await channel.close()
    assert channel.get_state() is STATE.SHUTDOWN


async def test_a_call_that_does_not_wait_fails_once_nobody_can_be_reached(nowhere):
    world, port = nowhere
    async with world.aio_channel() as channel:
        await reach(channel, STATE.TRANSIENT_FAILURE)
        calls = [
            channel.unary_unary("/contract/Echo")(b"x", timeout=10),
            channel.stream_unary("/contract/Join")(iter([b"x"]), timeout=10),
        ]
        for call in calls:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() is CODE.UNAVAILABLE
            assert str(port) in caught.value.details()
            assert f"\tstatus = {CODE.UNAVAILABLE}\n" in str(caught.value)
        streams = [
            channel.unary_stream("/contract/Repeat")(b"x", timeout=10),
            channel.stream_stream("/contract/EchoAll")(iter([b"x"]), timeout=10),
        ]
        for call in streams:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                [r async for r in call]
            assert caught.value.code() is CODE.UNAVAILABLE


async def test_a_call_that_waits_ends_at_its_deadline(nowhere):
    world, _ = nowhere
    async with world.aio_channel() as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/contract/Echo")(b"x", timeout=0.2, wait_for_ready=True)
        assert caught.value.code() is CODE.DEADLINE_EXCEEDED


async def test_calls_that_wait_are_made_once_the_server_is_there(nowhere):
    world, port = nowhere
    async with world.aio_channel(options=OPTIONS) as channel:
        ready = {"timeout": 30, "wait_for_ready": True}
        unary = channel.unary_unary("/contract/Echo")(b"x", **ready)
        stream = channel.unary_stream("/contract/Repeat")(b"x", **ready)
        join = channel.stream_unary("/contract/Join")(iter([b"x", b"y"]), **ready)
        both = channel.stream_stream("/contract/EchoAll")(iter([b"x"]), **ready)
        written = channel.stream_stream("/contract/EchoAll")(**ready)
        writing = asyncio.create_task(written.write(b"w"))
        await asyncio.sleep(0.05)
        assert not any(call.done() for call in (unary, stream, join, both, written))
        with ContractServer("--port", str(port)) as server:
            await asyncio.to_thread(server.ready)
            assert await unary == b"x"
            assert [r async for r in stream] == [b"x0", b"x1", b"x2"]
            assert await join == b"x,y"
            assert [r async for r in both] == [b"x"]
            await writing
            assert await written.read() == b"w"
            await written.done_writing()
            assert await written.read() is grpc.aio.EOF


async def test_a_call_that_waits_can_be_cancelled(nowhere):
    world, _ = nowhere
    told: list[object] = []
    async with world.aio_channel() as channel:
        call = channel.unary_unary("/contract/Echo")(b"x", timeout=30, wait_for_ready=True)
        call.add_done_callback(told.append)
        await asyncio.sleep(0.02)
        assert call.cancel()
        assert call.done()
        assert call.cancelled()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await call.code() is CODE.CANCELLED
        assert await call.details() == "Locally cancelled by application!"
        assert told == [call]
