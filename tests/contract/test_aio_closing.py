"""The end of an asyncio channel: with and without grace, twice, by a with block; and what follows."""

from __future__ import annotations

import asyncio
import gc
import time

import grpc
import pytest
from tests.support.waiting import until

CODE = grpc.StatusCode


async def test_without_grace_calls_under_way_are_cancelled(world, name):
    channel = world.aio_channel()
    unary = channel.unary_unary("/contract/Hang")(name.encode(), timeout=30)
    stream = channel.unary_stream("/contract/HangRepeat")(b"other-" + name.encode(), timeout=30)
    await until(lambda: world.events(name) and world.events(f"other-{name}"), "both began")
    await channel.close()
    assert unary.done()
    assert unary.cancelled()
    assert await unary.code() is CODE.CANCELLED
    with pytest.raises(asyncio.CancelledError):
        await unary
    assert stream.cancelled()
    await until(lambda: world.events(name) == ["began", "ended"], "it ended")


async def test_with_grace_calls_under_way_may_finish(world):
    channel = world.aio_channel()
    await channel.channel_ready()
    call = channel.unary_unary("/contract/Sleep")(b"0.2", timeout=10)
    await asyncio.sleep(0.05)
    began = time.monotonic()
    await channel.close(grace=10)
    assert time.monotonic() - began < 9
    assert await call == b"slept"


async def test_after_the_grace_calls_are_cancelled(world, name):
    channel = world.aio_channel()
    await channel.channel_ready()
    call = channel.unary_unary("/contract/Hang")(name.encode(), timeout=30)
    await until(lambda: world.events(name), "it began")
    await channel.close(grace=0.1)
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await call.code() is CODE.CANCELLED


async def test_a_call_that_waits_is_cancelled(place, world):
    channel = place(world.kind, ["127.0.0.1:1"]).aio_channel()
    call = channel.unary_unary("/contract/Echo")(b"x", timeout=30, wait_for_ready=True)
    await asyncio.sleep(0.05)
    await channel.close()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert call.cancelled()
    assert await call.code() is CODE.CANCELLED


@pytest.mark.parametrize("used", [False, True])
async def test_a_closed_channel_refuses_calls(world, used):
    channel = world.aio_channel()
    echo = channel.unary_unary("/contract/Echo")
    if used:
        assert await echo(b"x", timeout=10) == b"x"
    repeat = channel.unary_stream("/contract/Repeat")
    join = channel.stream_unary("/contract/Join")
    both = channel.stream_stream("/contract/EchoAll")
    await channel.close()
    for call in (lambda: echo(b"x"), lambda: repeat(b"x"), join, both):
        with pytest.raises(grpc.aio.UsageError, match="Channel is closed"):
            call()


async def test_closing_twice_is_no_matter_and_a_negative_grace_is(world):
    channel = world.aio_channel()
    with pytest.raises(ValueError, match="grace"):
        await channel.close(grace=-1)
    await channel.close()
    await channel.close()
    async with channel:
        pass


async def test_a_with_block_closes_and_swallows_nothing(world):
    channel = world.aio_channel()
    with pytest.raises(LookupError, match="mine"):
        async with channel as entered:
            assert entered is channel
            raise LookupError("mine")
    with pytest.raises(grpc.aio.UsageError):
        channel.unary_unary("/contract/Echo")(b"x")


async def test_the_loop_of_a_channel_can_be_asked(world):
    """Tracing libraries do."""
    async with world.aio_channel() as channel:
        assert channel._loop is asyncio.get_running_loop()
        await channel.unary_unary("/contract/Echo")(b"x", timeout=10)
        assert channel._loop is asyncio.get_running_loop()


async def test_a_stub_keeps_its_channel_alive(world):
    echo = world.aio_channel().unary_unary("/contract/Echo")
    gc.collect()
    assert await echo(b"x", timeout=10) == b"x"
    await echo._channel.close() if world.balanced else None
