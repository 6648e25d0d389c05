"""Asyncio calls with a stream of requests that are sent again, or must not be, on real servers."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest
from tests.support.calls import RETRY, who
from tests.support.scripted import ScriptedServer, aio_opened, announced, in_flight, script
from tests.support.waiting import until

FAILS = {"code": "UNAVAILABLE"}
MANY = [b"%d" % number for number in range(50)]


@pytest.fixture
def servers(announce) -> Iterator[list[ScriptedServer]]:
    with announced(announce, 2) as made:
        yield made


@pytest.fixture
async def channel(etcd, service, servers):
    async with aio_opened(etcd, service) as channel:
        yield channel


def began(servers: list[ScriptedServer], name: str) -> int:
    """How many attempts servers have seen."""
    return sum(server.saw(name).count("began") for server in servers)


async def each(requests: list[bytes]) -> AsyncIterator[bytes]:
    for request in requests:
        yield request


# How the application gives its requests: to a call that ``begin`` begins.


async def by_async_iterator(begin, requests: list[bytes]) -> Any:
    return begin(each(requests))


async def by_iterator(begin, requests: list[bytes]) -> Any:
    return begin(iter(requests))


async def by_writing(begin, requests: list[bytes]) -> Any:
    call = begin(None)
    for request in requests:
        await call.write(request)
    await call.done_writing()
    return call


GIVEN = [by_async_iterator, by_iterator, by_writing]


# How it takes what is answered: the address, and what the server got after the script.


async def gather(channel, given, requests: list[bytes]) -> tuple[str, list[bytes]]:
    method = channel.stream_unary("/script/Gather")
    reply = await (await given(lambda source: method(source, timeout=20), requests))
    return who(reply), reply.split()[2].split(b",")


async def talk(channel, given, requests: list[bytes]) -> tuple[str, list[bytes]]:
    method = channel.stream_stream("/script/Talk")
    call = await given(lambda source: method(source, timeout=20), requests)
    return parsed([reply async for reply in call])


async def talk_by_reading(channel, given, requests: list[bytes]) -> tuple[str, list[bytes]]:
    method = channel.stream_stream("/script/Talk")
    call = await given(lambda source: method(source, timeout=20), requests)
    replies = []
    while (reply := await call.read()) is not grpc.aio.EOF:
        replies.append(reply)
    return parsed(replies)


def parsed(replies: list[bytes]) -> tuple[str, list[bytes]]:
    (address,) = {who(reply) for reply in replies}
    return address, [reply.split()[2] for reply in replies]


TAKEN = [gather, talk, talk_by_reading]


def in_all_ways(test):
    return pytest.mark.parametrize("given", GIVEN)(pytest.mark.parametrize("call", TAKEN)(test))


@in_all_ways
async def test_all_requests_are_sent_again_to_the_other_server(channel, servers, call, given):
    bad, good = servers
    names = []
    for _ in range(2):  # one of the two, at least, begins at the server that fails
        name, first = script({bad.address: {**FAILS, "after": 10}})
        assert await call(channel, given, [first, *MANY]) == (good.address, MANY)
        assert good.saw(name) == ["began", "answered"]
        names.append(name)
    assert any(bad.saw(name) == ["began", "failed"] for name in names)


@in_all_ways
async def test_a_server_that_is_killed_amid_the_requests_costs_no_call(channel, servers, call, given):
    dies, good = servers
    for _ in range(2):
        _, first = script({dies.address: {"die": True, "after": 10}})
        assert await call(channel, given, [first, *MANY]) == (good.address, MANY)


@in_all_ways
async def test_the_last_failure_is_told_when_all_attempts_fail(channel, servers, call, given):
    name, first = script({"*": {**FAILS, "after": 50}})
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(channel, given, [first, *MANY])
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "as told" in (caught.value.details() or "")
    assert began(servers, name) == 4  # maxAttempts


@in_all_ways
async def test_without_a_retry_policy_it_is_sent_once(etcd, service, servers, call, given):
    async with aio_opened(etcd, service, config=None) as channel:
        name, first = script({"*": FAILS})
        with pytest.raises(grpc.aio.AioRpcError):
            await call(channel, given, [first])
        assert began(servers, name) == 1


@pytest.mark.parametrize(("limit", "attempts"), [(1000, 1), (10_000, 4)])
@pytest.mark.parametrize("call", TAKEN)
async def test_it_is_sent_again_as_long_as_all_of_it_is_kept(
    etcd, service, servers, call, limit, attempts
):
    options = (("grpc.per_rpc_retry_buffer_size", limit),)
    async with aio_opened(etcd, service, options=options) as channel:
        name, first = script({"*": {**FAILS, "after": 1}})
        with pytest.raises(grpc.aio.AioRpcError):
            await call(channel, by_iterator, [first, b"x" * 2000])
        assert began(servers, name) == attempts


async def test_a_conversation_goes_on_after_its_second_attempt(channel, servers):
    """Each request depends on the answer before, and is asked for by one task."""
    bad, good = servers
    kept = contextvars.ContextVar("kept", default=0)
    for _ in range(2):
        _, first = script({bad.address: FAILS})
        answered = asyncio.Semaphore()

        async def requests(first=first, answered=answered) -> AsyncIterator[bytes]:
            yield first
            for number, request in enumerate(MANY):
                await answered.acquire()
                assert kept.get() == number
                kept.set(number + 1)
                yield request

        got = []
        async for reply in channel.stream_stream("/script/Talk")(requests(), timeout=20):
            got.append(reply.split()[2])
            assert who(reply) == good.address
            answered.release()
        assert got == MANY


async def test_a_written_conversation_goes_on_after_its_second_attempt(channel, servers):
    bad, good = servers
    for _ in range(2):
        _, first = script({bad.address: FAILS})
        call = channel.stream_stream("/script/Talk")(timeout=20)
        await call.write(first)
        for request in MANY:
            await call.write(request)
            reply = await call.read()
            assert (who(reply), reply.split()[2]) == (good.address, request)
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK


async def test_a_call_is_never_sent_again_after_its_first_response(channel, servers):
    name, first = script({"*": {"messages": 1, **FAILS}})
    # Two only: a plain call that is writing when its stream ends may lose the status.
    call = channel.stream_stream("/script/Talk")(iter([first, b"x"]), timeout=20)
    assert await call.read()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert await call.code() is grpc.StatusCode.UNAVAILABLE
    assert began(servers, name) == 1


async def test_an_iterator_that_raises_cancels_the_call(channel, servers):
    """As on a plain channel."""
    name, first = script({"*": {"after": 2, **FAILS}})

    async def requests() -> AsyncIterator[bytes]:
        yield first
        await until(lambda: began(servers, name), "it has begun")
        raise ZeroDivisionError

    call = channel.stream_unary("/script/Gather")(requests(), timeout=20)
    with pytest.raises(asyncio.CancelledError):
        await call
    assert call.cancelled()
    assert began(servers, name) == 1


async def test_the_task_of_an_iterator_ends_with_its_call(channel, servers):
    name, first = script({"*": FAILS})
    ended = asyncio.Event()

    async def requests() -> AsyncIterator[bytes]:
        yield first
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    call = channel.stream_stream("/script/Talk")(requests(), timeout=20)
    assert await call.code() is grpc.StatusCode.UNAVAILABLE
    assert began(servers, name) == 4
    await asyncio.wait_for(ended.wait(), 10)


async def test_it_can_be_cancelled_while_its_iterator_waits(channel, servers):
    name, first = script()

    async def requests() -> AsyncIterator[bytes]:
        yield first
        await asyncio.Event().wait()

    call = channel.stream_unary("/script/Gather")(requests())
    await until(lambda: began(servers, name), "it has begun")
    assert call.cancel()
    assert await call.code() is grpc.StatusCode.CANCELLED


async def test_a_task_that_is_cancelled_while_it_writes_cancels_the_call(etcd, service, servers):
    """As on a plain channel."""
    policy = {**RETRY["methodConfig"][0]["retryPolicy"], "initialBackoff": "60s", "maxBackoff": "60s"}
    config = {"methodConfig": [{"name": [{}], "retryPolicy": policy}]}
    async with aio_opened(etcd, service, config) as channel:
        name, first = script({"*": FAILS})
        call = channel.stream_stream("/script/Talk")()
        await call.write(first)
        await until(lambda: began(servers, name), "it has begun")
        await until(lambda: not in_flight(channel), "it has failed once")
        writing = asyncio.create_task(call.write(b"more"))
        await asyncio.sleep(0)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        assert call.cancelled()
        assert await call.code() is grpc.StatusCode.CANCELLED


@pytest.fixture(params=["ours", "plain"])
async def either(request, channel, servers):
    """A channel of each kind, which must not differ."""
    if request.param == "ours":
        yield channel
    else:
        async with grpc.aio.insecure_channel(servers[0].address) as plain:
            yield plain


async def test_what_an_application_may_not_do(either):
    _, first = script()
    given = either.stream_stream("/script/Talk")(each([first]), timeout=20)
    with pytest.raises(grpc.aio.UsageError, match="may not be mixed"):
        await given.write(b"more")
    with pytest.raises(grpc.aio.UsageError, match="may not be mixed"):
        await given.done_writing()
    assert await given.code() is grpc.StatusCode.OK
    closed = either.stream_stream("/script/Talk")()
    await closed.write(script({"*": {"sleep_s": 60}})[1])
    await closed.done_writing()
    await closed.done_writing()
    with pytest.raises(asyncio.InvalidStateError, match="half closed"):
        await closed.write(b"more")
    assert closed.cancel()
    written = either.stream_stream("/script/Talk")(timeout=20)
    await written.write(first)
    await written.done_writing()
    assert await written.read() is grpc.aio.EOF
    assert await written.code() is grpc.StatusCode.OK
    with pytest.raises(asyncio.InvalidStateError, match="already finished"):
        await written.write(b"more")
    await written.done_writing()


async def test_a_write_fails_as_its_call_does(either):
    _, first = script({"*": {"code": "NOT_FOUND"}})
    call = either.stream_stream("/script/Talk")(timeout=20)
    with pytest.raises((grpc.aio.AioRpcError, asyncio.InvalidStateError)):
        await call.write(first)
        while True:
            await call.write(b"more")
    assert await call.code() is not grpc.StatusCode.OK
