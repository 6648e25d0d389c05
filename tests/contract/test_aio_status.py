"""What an asyncio call can be asked once it has ended, on every path to its end."""

from __future__ import annotations

import asyncio
import copy
import pickle

import grpc
import pytest
from tests.support.contract import astate, pairs
from tests.support.contract_server import INITIAL, TRAILING

CODE = grpc.StatusCode
REQUEST = b"FAILED_PRECONDITION not now"
ABORTED = (CODE.FAILED_PRECONDITION, "not now", list(INITIAL), list(TRAILING))
GONE = (CODE.CANCELLED, "Locally cancelled by application!", [], [])


def aborted(achannel, shape):
    if shape == "unary_unary":
        return achannel.unary_unary("/contract/Abort")(REQUEST, timeout=10)
    if shape == "unary_stream":
        return achannel.unary_stream("/contract/AbortRepeat")(REQUEST, timeout=10)
    if shape == "stream_unary":
        return achannel.stream_unary("/contract/AbortJoin")(iter([b"a", REQUEST]), timeout=10)
    return achannel.stream_stream("/contract/AbortEchoAll")(iter([REQUEST]), timeout=10)


SHAPES = ["unary_unary", "unary_stream", "stream_unary", "stream_stream"]


async def outcome(call):
    if isinstance(call, grpc.aio.UnaryStreamCall | grpc.aio.StreamStreamCall):
        return [response async for response in call]
    return await call


@pytest.mark.parametrize("shape", SHAPES)
async def test_an_error_of_the_server_arrives_with_all_that_was_sent(achannel, shape):
    call = aborted(achannel, shape)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await outcome(call)
    error = caught.value
    assert (error.code(), error.details()) == ABORTED[:2]
    assert pairs(error.initial_metadata()) == list(INITIAL)
    assert pairs(error.trailing_metadata()) == list(TRAILING)
    assert "not now" in error.debug_error_string()
    assert await astate(call) == ABORTED
    assert "not now" in await call.debug_error_string()
    assert (call.done(), call.cancelled(), call.cancel()) == (True, False, False)


async def test_the_text_of_an_error_and_of_a_call(achannel, name):
    call = aborted(achannel, "unary_unary")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    for text in (str(caught.value), repr(caught.value)):
        assert text.startswith("<AioRpcError of RPC that terminated with:\n")
        assert "\tstatus = StatusCode.FAILED_PRECONDITION\n" in text
    assert " of RPC that terminated with:\n" in str(call)
    assert str(call) == repr(call)
    call = achannel.unary_unary("/contract/Hang")(name.encode(), timeout=30)
    assert str(call).endswith(" object>")
    assert "\n" not in str(call)
    call.cancel()


async def test_an_error_can_be_pickled(achannel):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await aborted(achannel, "unary_unary")
    for again in (pickle.loads(pickle.dumps(caught.value)), copy.copy(caught.value)):
        assert (again.code(), again.details()) == ABORTED[:2]
        assert pairs(again.trailing_metadata()) == list(TRAILING)


async def test_a_call_that_nobody_awaits_can_be_asked(achannel):
    call = aborted(achannel, "unary_unary")
    assert await call.code() is CODE.FAILED_PRECONDITION
    assert await call.details() == "not now"
    assert pairs(await call.trailing_metadata()) == list(TRAILING)
    assert call.done()


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_deadline_of_ones_own_is_told(achannel, name, shape):
    request = name.encode()
    call = {
        "unary_unary": lambda: achannel.unary_unary("/contract/Hang")(request, timeout=0.1),
        "unary_stream": lambda: achannel.unary_stream("/contract/HangRepeat")(request, timeout=0.1),
        "stream_unary": lambda: achannel.stream_unary("/contract/HangJoin")(
            iter([request]), timeout=0.1
        ),
        "stream_stream": lambda: achannel.stream_stream("/contract/HangEchoAll")(
            iter([request]), timeout=0.1
        ),
    }[shape]()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await outcome(call)
    assert caught.value.code() is CODE.DEADLINE_EXCEEDED
    assert "Deadline Exceeded" in caught.value.details()
    assert await call.code() is CODE.DEADLINE_EXCEEDED
    assert list(await call.trailing_metadata()) == []
    assert call.time_remaining() == 0
    assert not call.cancelled()


@pytest.mark.parametrize("timeout", [0, -1])
async def test_a_deadline_in_the_past_fails_at_once(achannel, name, timeout):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await achannel.unary_unary("/contract/Hang")(name.encode(), timeout=timeout)
    assert caught.value.code() is CODE.DEADLINE_EXCEEDED


async def test_time_remaining_counts_down(achannel, name):
    call = achannel.unary_unary("/contract/Hang")(name.encode(), timeout=20)
    first = call.time_remaining()
    assert 10 < first <= 20
    await asyncio.sleep(0.02)
    assert call.time_remaining() < first
    call.cancel()
    call = achannel.unary_stream("/contract/HangRepeat")(name.encode())
    assert call.time_remaining() is None
    call.cancel()


async def test_a_cancelled_call_can_be_asked_everything(achannel, name):
    call = achannel.unary_unary("/contract/Hang")(name.encode(), timeout=30)
    assert call.cancel()
    assert call.done()
    assert call.cancelled()
    assert await astate(call) == GONE
    assert call.cancel() is False
