"""The asyncio balanced channel against real servers and a real etcd."""

from __future__ import annotations

import asyncio
import collections
import gc
import time

import grpc
import pytest
from tests.support.calls import RETRY, free_port, who
from tests.support.processes import EchoServer
from tests.support.scripted import ScriptedServer, connected, script
from tests.support.threads import no_thread_begins
from tests.support.waiting import until

import etcd_grpc


@pytest.fixture
async def channel(etcd, service, echoes, announce):
    """A channel over the three echo servers, all of them connected."""
    for echo in echoes:
        announce(echo.address)
    async with etcd_grpc.aio.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel:
        call = channel.unary_unary("/echo/UnaryUnary")
        seen: set[str] = set()
        async with asyncio.timeout(10):
            while len(seen) < 3:
                seen = {who(await call(b"x", timeout=20)) for _ in range(6)}
        yield channel


async def test_unary_calls_are_spread_evenly_to_the_call(channel, echoes):
    call = channel.unary_unary("/echo/UnaryUnary")
    replies = await asyncio.gather(*(call(b"x", timeout=10) for _ in range(300)))
    assert collections.Counter(map(who, replies)) == {echo.address: 100 for echo in echoes}


async def test_a_call_can_be_asked_everything(channel):
    call = channel.unary_unary("/echo/UnaryUnary")(b"x", timeout=20, metadata=(("asked", "yes"),))
    done: list[object] = []
    call.add_done_callback(done.append)
    assert isinstance(call, grpc.aio.UnaryUnaryCall)
    assert 0 < call.time_remaining() <= 20
    await call.wait_for_connection()
    assert (await call).endswith(b" x")
    assert await call.code() is grpc.StatusCode.OK
    assert ("initial", "one") in tuple(await call.initial_metadata())
    assert ("trailing", "two") in tuple(await call.trailing_metadata())
    assert call.done()
    assert not call.cancelled()
    await until(lambda: done == [call], "the callback")


async def test_streams_work_in_all_shapes(channel):
    replies = [r async for r in channel.unary_stream("/echo/UnaryStream")(b"x", timeout=20)]
    assert [r.split()[1] for r in replies] == [b"x"] * 3
    reply = await channel.stream_unary("/echo/StreamUnary")(iter([b"a", b"b"]), timeout=20)
    assert reply.endswith(b"a,b")
    stream = channel.stream_stream("/echo/StreamStream")(timeout=20)
    await stream.write(b"1")
    assert (await stream.read()).endswith(b" 1")
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF


async def test_every_shape_waits_for_the_first_endpoint(etcd, service, echoes, announce):
    announce(echoes[0].address)

    def new():
        return etcd_grpc.aio.insecure_channel(f"etcd:///{service}", etcd=etcd)

    async with new() as channel:
        assert who(await channel.unary_unary("/echo/UnaryUnary")(b"x", timeout=20)) == echoes[0].address
    async with new() as channel:
        call = channel.unary_stream("/echo/UnaryStream")(b"x", timeout=20)
        assert isinstance(call, grpc.aio.UnaryStreamCall)
        assert len([r async for r in call]) == 3
        assert await call.code() is grpc.StatusCode.OK
    async with new() as channel:
        call = channel.stream_unary("/echo/StreamUnary")(timeout=20)
        assert isinstance(call, grpc.aio.StreamUnaryCall)
        await call.write(b"a")
        await call.done_writing()
        assert (await call).endswith(b" a")
    async with new() as channel:
        call = channel.stream_stream("/echo/StreamStream")(request_iterator=iter([b"1"]), timeout=20)
        assert isinstance(call, grpc.aio.StreamStreamCall)
        assert (await call.read()).endswith(b" 1")
        assert await call.initial_metadata() is not None


async def test_an_error_of_the_server_arrives_as_it_was_sent(channel):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await channel.unary_unary("/echo/Abort")(b"FAILED_PRECONDITION not now", timeout=20)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert caught.value.details() == "not now"


async def test_a_deadline_is_kept(channel):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await channel.unary_unary("/echo/Slow")(b"30", timeout=0.2)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_cancelling_a_call_or_its_task_cancels_it(channel, etcd, service):
    call = channel.unary_unary("/echo/Slow")(b"30", timeout=60)
    assert call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert call.cancelled()
    assert await call.code() is grpc.StatusCode.CANCELLED

    async with etcd_grpc.aio.insecure_channel(f"etcd:///{service}.none", etcd=etcd) as empty:
        waiting = empty.unary_unary("/echo/Slow")(b"30", wait_for_ready=True)
        task = asyncio.ensure_future(waiting.code())
        await asyncio.sleep(0)
        assert waiting.cancel()
        assert await task is grpc.StatusCode.CANCELLED
        assert waiting.cancelled()
        with pytest.raises(asyncio.CancelledError):
            await waiting


async def test_without_instances_the_error_names_the_service_and_etcds_state(etcd, service):
    async with etcd_grpc.aio.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/echo/UnaryUnary")(b"x", timeout=20)
        stream = channel.unary_stream("/echo/UnaryStream")(b"x", timeout=20)
        assert await stream.code() is grpc.StatusCode.UNAVAILABLE
        assert service in await stream.details()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert service in caught.value.details()
    assert f"etcd at {etcd} is connected, revision" in caught.value.details()


async def test_without_etcd_the_error_comes_at_the_deadline_and_names_the_members(service):
    dead = f"127.0.0.1:{free_port()}"
    async with etcd_grpc.aio.insecure_channel(f"etcd:///{service}", etcd=dead) as channel:
        channel.get_state(try_to_connect=True)
        await until(lambda: channel._dispatcher._running.blames_etcd, "etcd refuses connections")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/echo/UnaryUnary")(b"x", timeout=0.5)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert dead in caught.value.details()


async def test_wait_for_ready_waits_for_the_first_instance(etcd, service, echoes, announce):
    async with etcd_grpc.aio.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel:
        call = channel.unary_unary("/echo/UnaryUnary")(b"x", timeout=30, wait_for_ready=True)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/echo/UnaryUnary")(b"x", timeout=0.2, wait_for_ready=True)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        announce(echoes[0].address)
        assert who(await call) == echoes[0].address


async def test_endpoints_that_refuse_connections_are_skipped(etcd, service, echoes, announce):
    for _ in range(3):
        announce(f"127.0.0.1:{free_port()}")
    announce(echoes[0].address)
    async with etcd_grpc.aio.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel:
        call = channel.unary_unary("/echo/UnaryUnary")
        assert {who(await call(b"x", timeout=20)) for _ in range(50)} == {echoes[0].address}


class Load:
    """Calls in a row from a few tasks; keeps what failed and who answered."""

    def __init__(self, channel: grpc.aio.Channel, tasks: int = 8) -> None:
        self._call = channel.unary_unary("/echo/UnaryUnary")
        self._count = tasks
        self._stop = False
        self.failed: list[grpc.aio.AioRpcError] = []
        self.last_failure = 0.0
        self.answered: collections.Counter[str] = collections.Counter()

    async def _run(self) -> None:
        while not self._stop:
            try:
                self.answered[who(await self._call(b"x", timeout=10))] += 1
            except grpc.aio.AioRpcError as error:
                self.failed.append(error)
                self.last_failure = time.monotonic()

    async def __aenter__(self):
        self._tasks = [asyncio.create_task(self._run()) for _ in range(self._count)]
        return self

    async def __aexit__(self, *exc):
        self._stop = True
        await asyncio.gather(*self._tasks)


async def test_no_call_fails_when_instances_join_and_leave_gracefully(etcd, service):
    """Without any retry policy."""
    loop = asyncio.get_running_loop()
    with EchoServer(register=service, etcd=etcd) as first:
        async with (
            etcd_grpc.aio.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel,
            Load(channel) as load,
        ):
            await until(lambda: load.answered[first.address] > 50, "the first answers")
            for _ in range(2):
                other = await loop.run_in_executor(
                    None, lambda: EchoServer(register=service, etcd=etcd)
                )
                with other:
                    await until(lambda: load.answered[other.address] > 50, "the other answers")  # noqa: B023
                    assert await loop.run_in_executor(None, other.terminate) == 0
                before = load.answered[first.address]
                await until(lambda: load.answered[first.address] > before + 50, "goes on")  # noqa: B023
    assert load.failed == []


@pytest.mark.parametrize("config", [RETRY, None], ids=["retry", "no-retry"])
async def test_when_an_instance_is_killed(etcd, service, config):
    with (
        EchoServer(register=service, etcd=etcd) as first,
        EchoServer(register=service, etcd=etcd, ttl_s=2) as second,
    ):
        async with (
            etcd_grpc.aio.insecure_channel(
                f"etcd:///{service}", etcd=etcd, service_config=config
            ) as channel,
            Load(channel) as load,
        ):
            both = (first.address, second.address)
            await until(lambda: min(load.answered[a] for a in both) > 50, "both answer")
            second.kill()
            killed = time.monotonic()
            before = load.answered[first.address]
            await until(lambda: load.answered[first.address] > before + 200, "goes on")
    if config is not None:
        assert load.failed == []
    else:
        assert len(load.failed) <= 16  # the one under way, and one on a connection just dead
        assert load.last_failure - killed < 5  # no call hung until its deadline
        assert {e.code() for e in load.failed} <= {grpc.StatusCode.UNAVAILABLE}


async def test_code_without_await_drives_the_retries_too(etcd, service, announce):
    with ScriptedServer() as first, ScriptedServer() as second:
        announce(first.address)
        async with etcd_grpc.aio.insecure_channel(
            f"etcd:///{service}", etcd=etcd, service_config=RETRY
        ) as channel:
            name, request = script({first.address: {"sleep_s": 60}})
            slow = channel.unary_unary("/script/Unary")(request, timeout=60)
            code = asyncio.create_task(slow.code())
            await until(lambda: "waits" in first.saw(name), "under way")
            announce(second.address)
            await until(connected(channel, 2), "the second is connected")
            first.kill()
            assert await code is grpc.StatusCode.OK
            assert who(await slow) == second.address


async def test_connectivity(etcd, service, echoes, announce):
    async with etcd_grpc.aio.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel:
        assert channel.get_state() is grpc.ChannelConnectivity.IDLE
        channel.get_state(try_to_connect=True)
        await until(
            lambda: channel.get_state() is grpc.ChannelConnectivity.TRANSIENT_FAILURE, "failing"
        )
        waiting = asyncio.create_task(channel.channel_ready())
        announce(echoes[0].address)
        await asyncio.wait_for(waiting, 10)
        assert channel.get_state() is grpc.ChannelConnectivity.READY


async def test_interceptors_see_the_calls(etcd, service, echoes, announce):
    announce(echoes[0].address)
    seen: list[object] = []

    class Count(grpc.aio.UnaryUnaryClientInterceptor):
        async def intercept_unary_unary(self, continuation, client_call_details, request):
            seen.append(client_call_details.method)
            return await continuation(client_call_details, request)

    async with etcd_grpc.aio.insecure_channel(
        f"etcd:///{service}", etcd=etcd, interceptors=[Count()]
    ) as channel:
        assert (await channel.unary_unary("/echo/UnaryUnary")(b"x", timeout=20)).endswith(b" x")
    assert seen == [b"/echo/UnaryUnary"] or seen == ["/echo/UnaryUnary"]


async def test_a_blocked_event_loop_gets_the_latest_set_afterwards(channel, echoes, raw, service):
    raw.delete(f"{service}/{echoes[0].address}")
    time.sleep(0.3)  # the point: the loop is blocked while the events arrive
    call = channel.unary_unary("/echo/UnaryUnary")
    left = {echo.address for echo in echoes[1:]}
    async with asyncio.timeout(20):
        while {who(await call(b"x", timeout=20)) for _ in range(20)} != left:
            pass
    assert {row.address for row in channel.explain().endpoints} == left


async def test_close_with_grace_lets_calls_finish(channel):
    call = channel.unary_unary("/echo/Slow")(b"0.5", timeout=20)
    await asyncio.sleep(0.1)
    await channel.close(grace=10)
    assert (await call).endswith(b"slow")
    with pytest.raises(grpc.aio.UsageError):
        channel.unary_unary("/echo/UnaryUnary")(b"x")


def test_event_loops_one_after_another(etcd, service, echoes, announce):
    announce(echoes[0].address)

    async def once() -> str:
        async with etcd_grpc.aio.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel:
            return who(await channel.unary_unary("/echo/UnaryUnary")(b"x", timeout=20))

    assert [asyncio.run(once()) for _ in range(3)] == [echoes[0].address] * 3


async def test_an_unclosed_channel_warns_and_ends_its_threads(etcd, service, echoes, announce):
    announce(echoes[0].address)

    async def use() -> None:
        channel = etcd_grpc.aio.insecure_channel(f"etcd:///{service}", etcd=etcd)
        await channel.unary_unary("/echo/UnaryUnary")(b"x", timeout=20)

    with pytest.warns(ResourceWarning, match=service):
        await use()
        gc.collect()
    await asyncio.sleep(0.1)


async def test_a_channel_that_was_never_used_starts_nothing(etcd):
    with no_thread_begins():
        channel = etcd_grpc.aio.insecure_channel("etcd:///never.Used", etcd=etcd)
    await channel.close()
