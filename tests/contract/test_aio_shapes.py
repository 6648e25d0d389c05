"""The four shapes of asyncio, by iteration and by reading and writing."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from tests.support.contract import astate
from tests.support.contract_server import INITIAL, TRAILING

CODE = grpc.StatusCode
DONE = (CODE.OK, "", list(INITIAL), list(TRAILING))


async def test_unary_unary_answers(achannel):
    call = achannel.unary_unary("/contract/Echo")(b"x", timeout=10)
    assert isinstance(call, grpc.aio.Call)
    assert isinstance(call, grpc.aio.UnaryUnaryCall)
    assert await call == b"x"
    assert await call == b"x"  # as often as one likes
    assert await astate(call) == DONE
    assert call.done()
    assert not call.cancelled()
    assert call.cancel() is False
    await call.wait_for_connection()


async def test_unary_stream_is_iterated(achannel):
    call = achannel.unary_stream("/contract/Repeat")(b"x", timeout=10)
    assert isinstance(call, grpc.aio.UnaryStreamCall)
    assert [r async for r in call] == [b"x0", b"x1", b"x2"]
    assert [r async for r in call] == []
    assert await astate(call) == DONE


async def test_unary_stream_is_read(achannel):
    call = achannel.unary_stream("/contract/Repeat")(b"x", timeout=10)
    assert [await call.read() for _ in range(3)] == [b"x0", b"x1", b"x2"]
    assert await call.read() is grpc.aio.EOF
    assert await call.read() is grpc.aio.EOF
    assert await astate(call) == DONE


async def test_reading_and_iterating_do_not_mix(achannel):
    call = achannel.unary_stream("/contract/Repeat")(b"x", timeout=10)
    await call.read()
    with pytest.raises(grpc.aio.UsageError, match="may not be mixed"):
        [r async for r in call]


@pytest.mark.parametrize("lazily", [False, True])
async def test_stream_unary_takes_an_iterator(achannel, lazily):
    async def requests():
        yield b"a"
        await asyncio.sleep(0)
        yield b"b"

    given = requests() if lazily else iter([b"a", b"b"])
    call = achannel.stream_unary("/contract/Join")(given, timeout=10)
    assert isinstance(call, grpc.aio.StreamUnaryCall)
    assert await call == b"a,b"
    assert await astate(call) == DONE
    with pytest.raises(grpc.aio.UsageError, match="may not be mixed"):
        await call.write(b"c")


async def test_stream_unary_is_written_to(achannel):
    call = achannel.stream_unary("/contract/Join")(timeout=10)
    await call.write(b"a")
    await call.write(b"b")
    await call.done_writing()
    await call.done_writing()
    assert await call == b"a,b"
    assert await astate(call) == DONE


async def test_writing_after_the_last_request_is_refused(achannel):
    call = achannel.stream_stream("/contract/EchoAll")(timeout=10)
    await call.write(b"a")
    await call.done_writing()
    with pytest.raises(asyncio.InvalidStateError):
        await call.write(b"b")
    assert [r async for r in call] == [b"a"]


async def test_writing_after_the_end_is_refused(achannel):
    call = achannel.stream_stream("/contract/EchoAll")(timeout=10)
    await call.done_writing()
    assert await call.code() is CODE.OK
    with pytest.raises(asyncio.InvalidStateError):
        await call.write(b"b")


async def test_stream_stream_answers_while_requests_are_written(achannel):
    call = achannel.stream_stream("/contract/EchoAll")(timeout=10)
    assert isinstance(call, grpc.aio.StreamStreamCall)
    for number in range(4):
        await call.write(str(number).encode())
        assert await call.read() == str(number).encode()
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await astate(call) == DONE


async def test_stream_stream_takes_iterators_on_both_sides(achannel):
    call = achannel.stream_stream("/contract/EchoAll")(iter([b"a", b"b"]), timeout=10)
    assert [r async for r in call] == [b"a", b"b"]


async def test_many_calls_at_once_all_answer(achannel):
    echo = achannel.unary_unary("/contract/Echo")
    requests = [str(number).encode() for number in range(50)]
    assert await asyncio.gather(*(echo(r, timeout=10) for r in requests)) == requests


async def test_the_connection_can_be_waited_for(achannel, name):
    call = achannel.stream_stream("/contract/HangEchoAll")(timeout=30)
    await call.wait_for_connection()
    await call.write(name.encode())
    assert await call.read() == name.encode()
    assert list(await call.initial_metadata()) == list(INITIAL)
    assert not call.done()
    assert call.cancel()


async def test_requests_by_keyword(achannel):
    call = achannel.stream_unary("/contract/Join")(request_iterator=iter([b"a"]), timeout=10)
    assert await call == b"a"


async def test_serializers_are_used(achannel):
    echo = achannel.unary_unary("/contract/Echo", str.encode, bytes.decode)
    assert await echo("ü", timeout=10) == "ü"
    both = achannel.stream_stream("/contract/EchoAll", str.encode, bytes.decode)
    assert [r async for r in both(iter(["ü"]), timeout=10)] == ["ü"]
