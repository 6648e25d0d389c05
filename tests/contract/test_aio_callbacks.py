"""Done callbacks of asyncio calls: once, in order, with the call; at once when it has ended."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from tests.support.waiting import until

SHAPES = ["unary_unary", "unary_stream", "stream_unary", "stream_stream"]


def start(achannel, shape, *, fail=False):
    prefix = "/contract/Abort" if fail else "/contract/"
    request = b"FAILED_PRECONDITION x"
    if shape == "unary_unary":
        return achannel.unary_unary(prefix if fail else "/contract/Echo")(request, timeout=10)
    if shape == "unary_stream":
        return achannel.unary_stream(prefix + "Repeat")(request, timeout=10)
    if shape == "stream_unary":
        return achannel.stream_unary(prefix + "Join")(iter([request]), timeout=10)
    return achannel.stream_stream(prefix + "EchoAll")(iter([request]), timeout=10)


async def finish(call):
    try:
        if isinstance(call, grpc.aio.UnaryStreamCall | grpc.aio.StreamStreamCall):
            async for _ in call:
                pass
        else:
            await call
    except grpc.aio.AioRpcError:
        pass


@pytest.mark.parametrize("fail", [False, True], ids=["success", "failure"])
@pytest.mark.parametrize("shape", SHAPES)
async def test_callbacks_come_once_in_order_with_the_call(achannel, shape, fail):
    told: list[object] = []
    call = start(achannel, shape, fail=fail)
    call.add_done_callback(lambda done: told.append(("first", done)))
    call.add_done_callback(lambda done: told.append(("second", done)))
    await finish(call)
    await until(lambda: len(told) == 2, "both callbacks")
    assert told == [("first", call), ("second", call)]
    call.add_done_callback(lambda done: told.append(("third", done)))
    assert told[2:] == [("third", call)]


async def test_a_call_that_nobody_awaits_calls_back(achannel):
    told: list[object] = []
    call = start(achannel, "unary_unary", fail=True)
    call.add_done_callback(told.append)
    await until(lambda: told == [call], "the callback")
    assert await call.code() is grpc.StatusCode.FAILED_PRECONDITION


@pytest.mark.parametrize("shape", ["unary_unary", "unary_stream"])
async def test_a_cancelled_call_calls_back_once(achannel, name, shape):
    told: list[object] = []
    method = "/contract/Hang" if shape == "unary_unary" else "/contract/HangRepeat"
    call = getattr(achannel, shape)(method)(name.encode(), timeout=30)
    call.add_done_callback(told.append)
    await asyncio.sleep(0.02)
    assert call.cancel()
    await until(lambda: told, "the callback")
    await asyncio.sleep(0.02)
    assert told == [call]


async def test_in_the_callback_the_call_is_done(achannel):
    seen: list[object] = []
    call = start(achannel, "unary_unary")
    call.add_done_callback(lambda done: seen.extend([done.done(), done.cancelled()]))
    await call
    await until(lambda: seen, "the callback")
    assert seen == [True, False]
