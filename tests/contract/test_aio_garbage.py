"""Asyncio calls and channels that the application lets go of."""

from __future__ import annotations

import asyncio
import contextlib
import gc

import pytest
from tests.support.waiting import until


@contextlib.asynccontextmanager
async def dropped(world):
    """A balanced channel that nobody closed is told of, on whatever thread; a plain one is not."""
    if not world.balanced:
        yield
        return
    with pytest.warns(ResourceWarning, match="was not closed") as told:
        yield
        gc.collect()
        await until(lambda: len(told), "the warning")


async def test_a_stub_keeps_its_channel_alive(world):
    async with dropped(world):
        echo = world.aio_channel().unary_unary("/contract/Echo")
        gc.collect()
        assert await echo(b"x", timeout=10) == b"x"
        assert await echo(b"x", timeout=10) == b"x"
        del echo


async def test_a_call_that_nobody_awaits_goes_on(achannel, events, name):
    call = achannel.unary_unary("/contract/Hang")(name.encode(), timeout=30)
    await until(lambda: events(name), "it began")
    assert not call.done()
    call.cancel()
    await until(lambda: events(name) == ["began", "ended"], "it ended")


async def test_a_failed_call_that_nobody_awaits_is_no_noise(achannel):
    noise: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: noise.append(context))
    call = achannel.unary_unary("/contract/Abort")(b"ABORTED mine", timeout=10)
    await until(call.done, "its end")
    del call
    gc.collect()
    await asyncio.sleep(0)
    assert noise == []
