"""Calls of asyncio channels that are sent again, or must not be, on real servers."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator

import grpc
import pytest
from tests.support.calls import retry_on, who
from tests.support.scripted import ScriptedServer, aio_opened, announced, connected, in_flight, script
from tests.support.waiting import until

import etcd_grpc

FAILS = {"code": "UNAVAILABLE"}
LONG_BACKOFF = retry_on("UNAVAILABLE", backoff="60s")


@pytest.fixture
def servers(announce) -> Iterator[list[ScriptedServer]]:
    """Two scripted servers, announced."""
    with announced(announce, 2) as made:
        yield made


@pytest.fixture
async def channel(etcd, service, servers):
    """A channel that retries on UNAVAILABLE; ends with nothing in flight."""
    async with aio_opened(etcd, service) as channel:
        yield channel


async def test_call_that_only_has_a_done_callback_is_sent_again(channel, servers):
    bad, good = servers
    names = []
    for _ in range(2):  # one of the two, at least, begins at the server that fails
        name, request = script({bad.address: FAILS})
        call = channel.unary_unary("/script/Unary")(request, timeout=20)
        done: list[object] = []
        call.add_done_callback(done.append)
        await until(lambda: done == [call], "the callback")  # noqa: B023
        assert call.done()
        assert await call.code() is grpc.StatusCode.OK
        assert who(await call) == good.address
        assert good.saw(name) == ["began", "answered"]
        names.append(name)
    assert any(bad.saw(name) == ["began", "failed"] for name in names)


async def test_call_that_is_only_polled_is_sent_again(channel, servers):
    bad, good = servers
    for _ in range(2):
        name, request = script({bad.address: FAILS})
        call = channel.unary_unary("/script/Unary")(request, timeout=20)
        await until(call.done, "done")
        assert who(await call) == good.address
        assert good.saw(name) == ["began", "answered"]


async def test_call_that_nobody_holds_is_sent_again(channel, servers):
    bad, good = servers
    names = []
    for _ in range(2):
        name, request = script({bad.address: FAILS})
        channel.unary_unary("/script/Unary")(request, timeout=20)
        names.append(name)
    gc.collect()
    await until(lambda: all(good.saw(name) == ["began", "answered"] for name in names), "sent again")


async def test_call_asked_for_its_code_with_a_time_limit_goes_on(channel, servers):
    _, request = script({"*": {"sleep_s": 3}})
    call = channel.unary_unary("/script/Unary")(request, timeout=20)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(call.code(), 0.05)
    assert not call.done()
    assert await call.code() is grpc.StatusCode.OK


async def test_final_failure_reaches_callbacks_and_every_question(channel, servers):
    name, request = script({"*": {"code": "FAILED_PRECONDITION"}})
    call = channel.unary_unary("/script/Unary")(request, timeout=20)
    done: list[object] = []
    call.add_done_callback(done.append)
    await until(lambda: done == [call], "the callback")
    assert await call.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "as told" in await call.details()
    with pytest.raises(grpc.aio.AioRpcError):
        await call
    late: list[object] = []
    call.add_done_callback(late.append)
    assert late == [call]
    assert sorted(servers[0].saw(name) + servers[1].saw(name)) == ["began", "failed"]


async def test_pushback_is_obeyed(channel, servers):
    name, request = script({"*": {"code": "UNAVAILABLE", "pushback": "-1"}})
    with pytest.raises(grpc.aio.AioRpcError):
        await channel.unary_unary("/script/Unary")(request, timeout=20)
    assert sorted(servers[0].saw(name) + servers[1].saw(name)) == ["began", "failed"]
    for _ in range(3):  # until one begins at the server that fails
        name, request = script({servers[0].address: {"code": "UNAVAILABLE", "pushback": "700"}})
        await channel.unary_unary("/script/Unary")(request, timeout=20)
        if servers[0].saw(name):
            break
    (_, failed), (began, _) = servers[0].seen(name), servers[1].seen(name)
    assert began["at"] - failed["at"] >= 0.69


# Streams of responses.


async def read_all(call) -> list[bytes]:
    return [reply async for reply in call]


async def read_by_read(call) -> list[bytes]:
    replies = []
    while (reply := await call.read()) is not grpc.aio.EOF:
        replies.append(reply)
    return replies


@pytest.mark.parametrize("read", [read_all, read_by_read])
async def test_stream_that_fails_before_its_first_message_is_sent_again(channel, servers, read):
    bad, good = servers
    for _ in range(2):
        name, request = script({bad.address: FAILS})
        call = channel.unary_stream("/script/Stream")(request, timeout=20)
        done: list[object] = []
        call.add_done_callback(done.append)
        replies = await read(call)
        assert [who(reply) for reply in replies] == [good.address] * 2
        assert await call.code() is grpc.StatusCode.OK
        await until(lambda: done == [call], "the callback")  # noqa: B023
        assert good.saw(name) == ["began", "answered"]


async def test_stream_whose_server_is_killed_before_its_first_message_is_sent_again(channel, servers):
    dies, good = servers
    calls = []
    for _ in range(2):
        name, request = script({dies.address: {"sleep_s": 0.5, "die": True}})
        calls.append((name, channel.unary_stream("/script/Stream")(request, timeout=30)))
    for name, call in calls:
        assert [who(reply) for reply in await read_all(call)] == [good.address] * 2
        assert good.saw(name) == ["began", "answered"]


@pytest.mark.parametrize("end", [{"code": "UNAVAILABLE"}, {"die": True, "die_after_s": 0.5}])
async def test_stream_is_never_sent_again_after_its_first_message(channel, servers, end):
    one, other = servers
    name, request = script({"*": {"messages": 1, **end}})
    call = channel.unary_stream("/script/Stream")(request, timeout=20)
    replies = [await anext(aiter(call))]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await anext(aiter(call))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert await call.code() is grpc.StatusCode.UNAVAILABLE
    await asyncio.sleep(0.3)  # longer than the longest backoff
    left = one if one.address != who(replies[0]) else other
    assert left.saw(name) == []


async def test_stream_of_which_the_metadata_was_seen_is_not_sent_again(channel, servers):
    name, request = script({"*": {"headers": True, "sleep_s": 3, "code": "UNAVAILABLE"}})
    call = channel.unary_stream("/script/Stream")(request, timeout=20)
    assert ("sent", "early") in tuple(await call.initial_metadata())
    with pytest.raises(grpc.aio.AioRpcError):
        await read_all(call)
    assert sorted(servers[0].saw(name) + servers[1].saw(name)) == ["began", "failed", "waits"]


async def test_metadata_of_a_stream_that_is_sent_again_are_the_last_attempts(channel, servers):
    bad, _ = servers
    for _ in range(2):
        _, request = script({bad.address: FAILS, "*": {"headers": True}})
        call = channel.unary_stream("/script/Stream")(request, timeout=20)
        assert ("sent", "early") in tuple(await call.initial_metadata())
        assert len(await read_all(call)) == 2


async def test_stream_that_nobody_reads_is_settled(channel, servers):
    name, request = script({"*": FAILS})
    call = channel.unary_stream("/script/Stream")(request, timeout=20)
    done: list[object] = []
    call.add_done_callback(done.append)
    await until(lambda: done == [call], "the callback")
    assert await call.code() is grpc.StatusCode.UNAVAILABLE
    began = [what for server in servers for what in server.saw(name) if what == "began"]
    assert len(began) == 4  # maxAttempts


async def test_closing_the_channel_ends_calls_between_attempts(etcd, service, servers):
    async with etcd_grpc.aio.insecure_channel(
        f"etcd:///{service}", etcd=etcd, service_config=LONG_BACKOFF
    ) as channel:
        channel.get_state(try_to_connect=True)
        await until(connected(channel, 2), "all connected")
        name, request = script({"*": FAILS})
        unary = channel.unary_unary("/script/Unary")(request)
        stream = channel.unary_stream("/script/Stream")(request)
        await until(lambda: [s.saw(name).count("failed") for s in servers] == [1, 1], "failed once")
        await until(lambda: not in_flight(channel), "the attempts have ended")
        await channel.close()
        assert await unary.code() is grpc.StatusCode.CANCELLED
        assert await stream.code() is grpc.StatusCode.CANCELLED


async def test_cancelling_between_attempts_ends_the_call(etcd, service, servers):
    async with etcd_grpc.aio.insecure_channel(
        f"etcd:///{service}", etcd=etcd, service_config=LONG_BACKOFF
    ) as channel:
        channel.get_state(try_to_connect=True)
        await until(connected(channel, 2), "all connected")
        name, request = script({"*": FAILS})
        call = channel.unary_unary("/script/Unary")(request)
        await until(lambda: "failed" in servers[0].saw(name) + servers[1].saw(name), "failed once")
        await until(lambda: not in_flight(channel), "the attempt has ended")
        assert not call.done()
        assert call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert call.cancelled()
        assert await call.code() is grpc.StatusCode.CANCELLED
