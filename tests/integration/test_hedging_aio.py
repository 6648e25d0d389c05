"""Hedged calls of asyncio channels on real servers."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterator

import grpc
import pytest
from tests.support.calls import free_port, who
from tests.support.scripted import ScriptedServer, aio_opened, announced, hedge, in_flight, script
from tests.support.waiting import until

import etcd_grpc

HANGS = {"sleep_s": 60}


@pytest.fixture
def servers(announce) -> Iterator[list[ScriptedServer]]:
    """Three scripted servers, announced."""
    with announced(announce, 3) as made:
        yield made


opened = functools.partial(aio_opened, count=3)


def saw(servers: list[ScriptedServer], name: str) -> list[str]:
    """What all of them saw, sorted."""
    return sorted(what for server in servers for what in server.saw(name))


async def test_hedge_goes_to_another_server_and_the_slow_one_is_cancelled(etcd, service, servers):
    slow = servers[0]
    async with opened(etcd, service, hedge(2, "0.1s")) as channel:
        method = channel.unary_unary("/script/Unary")
        hedged = 0
        for _ in range(30):  # until one is seen to begin at the slow server
            name, request = script({slow.address: HANGS})
            assert who(await method(request, timeout=30)) != slow.address
            if slow.saw(name):
                hedged += 1
                await until(lambda: "cancelled" in slow.saw(name), "cancelled there")  # noqa: B023
                assert saw(servers, name) == ["answered", "began", "began", "cancelled", "waits"]
                break
        assert hedged
        await until(lambda: not in_flight(channel), "nothing in flight")
        assert all(row.failures == 0 for row in channel.explain().endpoints)


async def test_call_answers_every_question_and_calls_back_once(etcd, service, servers):
    slow = servers[0]
    async with opened(etcd, service, hedge(3, "0.05s")) as channel:
        for _ in range(3):
            _, request = script({slow.address: HANGS, "*": {"headers": True}})
            call = channel.unary_unary("/script/Unary")(request, timeout=30)
            assert isinstance(call, grpc.aio.UnaryUnaryCall)
            called: list[object] = []
            call.add_done_callback(called.append)
            assert not call.done()
            assert 0 < call.time_remaining() <= 30
            assert ("sent", "early") in tuple(await call.initial_metadata())
            assert await call.code() is grpc.StatusCode.OK
            assert await call.details() is not None
            assert await call.trailing_metadata() is not None
            await call.wait_for_connection()
            assert who(await call) != slow.address
            assert who(await call) != slow.address
            assert call.done()
            assert not call.cancelled()
            assert not call.cancel()
            assert called == [call]


async def test_call_that_nobody_awaits_is_hedged(etcd, service, servers):
    async with opened(etcd, service, hedge(3, "0.05s")) as channel:
        name, request = script({servers[0].address: {"sleep_s": 4}, "*": HANGS})
        call = channel.unary_unary("/script/Unary")(request, timeout=60)
        await until(call.done, "done", 30)
        assert who(await call) == servers[0].address
        assert saw(servers, name).count("began") == 3


async def test_statistics_of_a_loser_say_only_that_it_is_slow(etcd, service, servers):
    slow = servers[0]
    policy = [{"outlier_detection": {"childPolicy": [{"round_robin": {}}]}}]
    async with opened(etcd, service, hedge(2, "0.1s"), policy=policy) as channel:
        method = channel.unary_unary("/script/Unary")
        for _ in range(12):
            await method(script({slow.address: HANGS})[1], timeout=30)
        await until(lambda: not in_flight(channel), "nothing in flight")
        rows = {row.address: row for row in channel.explain().endpoints}
    assert rows[slow.address].picks >= 4
    assert rows[slow.address].load_ms > 50  # the delay, less what fades in seconds
    assert {row.failures for row in rows.values()} == {0}
    assert {row.why for row in rows.values()} == {""}


async def test_failure_that_is_not_fatal_brings_the_next_server_at_once(etcd, service, servers):
    acts = {server.address: {"code": "UNAVAILABLE"} for server in servers[:2]}
    async with opened(etcd, service, hedge(3, "60s")) as channel:
        for _ in range(3):
            name, request = script(acts)
            reply = await channel.unary_unary("/script/Unary")(request, timeout=50)
            assert who(reply) == servers[2].address
            assert saw(servers, name).count("answered") == 1


async def test_fatal_failure_ends_the_call_and_the_others(etcd, service, servers):
    fails = servers[0].address
    async with opened(etcd, service, hedge(3, "0s")) as channel:
        name, request = script({fails: {"sleep_s": 4, "code": "FAILED_PRECONDITION"}, "*": HANGS})
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/script/Unary")(request, timeout=50)
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        await until(lambda: saw(servers, name).count("cancelled") == 2, "the others are cancelled")
    assert saw(servers, name).count("began") == 3


async def test_pushback_stops_hedges(etcd, service, servers):
    async with opened(etcd, service, hedge(3, "60s")) as channel:
        name, request = script({"*": {"code": "UNAVAILABLE", "pushback": "-1"}})
        with pytest.raises(grpc.aio.AioRpcError):
            await channel.unary_unary("/script/Unary")(request, timeout=50)
    assert saw(servers, name) == ["began", "failed"]


async def test_deadline_covers_all_attempts(etcd, service, servers):
    name, request = script({"*": HANGS})
    async with opened(etcd, service, hedge(3, "0.05s")) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/script/Unary")(request, timeout=3)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await until(lambda: saw(servers, name).count("cancelled") == 3, "ended everywhere")


@pytest.mark.parametrize("how", ["call", "task"])
async def test_cancelling_a_call_or_its_task_cancels_all_attempts(etcd, service, servers, how):
    async with opened(etcd, service, hedge(3, "0.05s")) as channel:
        name, request = script({"*": HANGS})
        call = channel.unary_unary("/script/Unary")(request)
        task = asyncio.ensure_future(call)
        await until(lambda: saw(servers, name).count("waits") == 3, "all are asked")
        assert (call if how == "call" else task).cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert call.cancelled()
        assert call.done()
        assert await call.code() is grpc.StatusCode.CANCELLED
        with pytest.raises(asyncio.CancelledError):
            await call
        await until(lambda: saw(servers, name).count("cancelled") == 3, "cancelled everywhere")


async def test_asking_for_the_code_with_a_time_limit_cancels_nothing(etcd, service, servers):
    async with opened(etcd, service, hedge(2, "60s")) as channel:
        call = channel.unary_unary("/script/Unary")(script({"*": {"sleep_s": 3}})[1])
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(call.code(), 0.05)
        assert await call.code() is grpc.StatusCode.OK


async def test_hedged_call_waits_for_its_first_endpoint_and_fails_without(etcd, service, announce):
    async with etcd_grpc.aio.insecure_channel(
        f"etcd:///{service}", etcd=etcd, service_config=hedge(2, "0s")
    ) as channel:
        method = channel.unary_unary("/script/Unary")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await method(script()[1], timeout=20)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert service in caught.value.details()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await method(script()[1], timeout=0.3, wait_for_ready=True)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        announce(f"127.0.0.1:{free_port()}")
        with ScriptedServer() as server:
            announce(server.address)
            reply = await method(script()[1], timeout=30, wait_for_ready=True)
            assert who(reply) == server.address


async def test_many_hedged_calls_side_by_side_leave_nothing_behind(etcd, service, servers):
    slow = servers[0]
    async with opened(etcd, service, hedge(3, "0.01s")) as channel:
        method = channel.unary_unary("/script/Unary")
        for _ in range(5):
            requests = [script({slow.address: {"sleep_s": 0.2}})[1] for _ in range(40)]
            replies = await asyncio.gather(*(method(request, timeout=60) for request in requests))
            assert len(replies) == 40


async def test_closing_the_channel_ends_hedged_calls(etcd, service, servers):
    async with opened(etcd, service, hedge(2, "4s")) as channel:  # longer than a failure takes
        name, request = script({"*": HANGS})
        call = channel.unary_unary("/script/Unary")(request)
        _, request = script({"*": {"code": "UNAVAILABLE", "pushback": "60000"}})
        delayed = channel.unary_unary("/script/Unary")(request)
        await until(lambda: saw(servers, name).count("waits") == 2, "under way", 30)
        await until(lambda: in_flight(channel) == 2, "the other one has failed")
        await channel.close()
        assert await call.code() is grpc.StatusCode.CANCELLED
        assert await delayed.code() is grpc.StatusCode.CANCELLED


async def test_closing_the_channel_in_the_moment_in_which_an_attempt_ends(etcd, service, servers):
    """The attempt is counted out before its call hears of its end."""
    async with opened(etcd, service, hedge(2, "60s")) as channel:
        _, request = script({"*": {"code": "UNAVAILABLE", "pushback": "60000"}})
        call = channel.unary_unary("/script/Unary")(request)
        while in_flight(channel):
            await asyncio.sleep(0)
        await channel.close()
        async with asyncio.timeout(20):
            assert await call.code() is grpc.StatusCode.CANCELLED
