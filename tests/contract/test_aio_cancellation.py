"""A call is cancelled by its cancel, and by the end of a task that awaits it."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from tests.support.waiting import until

CODE = grpc.StatusCode


async def test_a_cancelled_call_ends_at_the_server(achannel, events, name):
    call = achannel.unary_unary("/contract/Hang")(name.encode(), timeout=30)
    await until(lambda: events(name), "it began")
    assert call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await call.code() is CODE.CANCELLED
    await until(lambda: events(name) == ["began", "ended"], "it ended")


async def test_a_call_cancelled_at_once_is_cancelled(achannel, name):
    call = achannel.unary_unary("/contract/Hang")(name.encode(), timeout=30)
    assert call.cancel()
    assert call.cancelled()
    with pytest.raises(asyncio.CancelledError):
        await call


@pytest.mark.parametrize("shape", ["unary_unary", "unary_stream", "stream_unary", "stream_stream"])
async def test_cancelling_the_task_that_awaits_cancels_the_call(achannel, events, name, shape):
    request = name.encode()
    call = {
        "unary_unary": lambda: achannel.unary_unary("/contract/Hang")(request, timeout=30),
        "unary_stream": lambda: achannel.unary_stream("/contract/HangRepeat")(request, timeout=30),
        "stream_unary": lambda: achannel.stream_unary("/contract/HangJoin")(
            iter([request]), timeout=30
        ),
        "stream_stream": lambda: achannel.stream_stream("/contract/HangEchoAll")(
            iter([request]), timeout=30
        ),
    }[shape]()

    async def wait():
        if shape.endswith("_stream"):
            return [response async for response in call]
        return await call

    task = asyncio.create_task(wait())
    await until(lambda: events(name), "it began")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert call.cancelled()
    assert await call.code() is CODE.CANCELLED
    await until(lambda: events(name) == ["began", "ended"], "it ended")


async def test_a_timeout_of_asyncio_cancels_the_call(achannel, events, name):
    call = achannel.unary_unary("/contract/Hang")(name.encode(), timeout=30)
    await until(lambda: events(name), "it began")
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(call, 0.05)
    assert call.cancelled()


async def test_cancel_wakes_the_task_that_awaits(achannel, events, name):
    call = achannel.unary_unary("/contract/Hang")(name.encode(), timeout=30)

    async def wait():
        return await call

    task = asyncio.create_task(wait())
    await until(lambda: events(name), "it began")
    assert call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("shape", ["unary_stream", "stream_stream"])
async def test_a_stream_cancelled_in_the_middle_raises(achannel, events, name, shape):
    if shape == "unary_stream":
        call = achannel.unary_stream("/contract/HangRepeat")(name.encode(), timeout=30)
    else:
        call = achannel.stream_stream("/contract/HangEchoAll")(iter([name.encode()]), timeout=30)
    assert await anext(aiter(call)) == name.encode()
    await until(lambda: events(name), "it hangs")
    assert call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await anext(aiter(call))
    assert call.done()
    await until(lambda: events(name) == ["began", "ended"], "it ended")


async def test_another_task_goes_on_when_one_is_cancelled(achannel, name):
    echo = achannel.unary_unary("/contract/Echo")
    hang = asyncio.ensure_future(achannel.unary_unary("/contract/Hang")(name.encode(), timeout=30))
    await asyncio.sleep(0)
    answers = asyncio.gather(*(echo(b"x", timeout=10) for _ in range(10)))
    hang.cancel()
    assert await answers == [b"x"] * 10
    with pytest.raises(asyncio.CancelledError):
        await hang


async def test_an_iterator_of_requests_that_raises_cancels_the_call(achannel):
    async def requests():
        yield b"x"
        raise LookupError("mine")

    call = achannel.stream_unary("/contract/Join")(requests(), timeout=10)
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await call.code() is CODE.CANCELLED
