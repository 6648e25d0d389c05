"""Policies at work in real channels: what calls show of endpoints decides where the next ones go."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator

import grpc
import pytest
from tests.support.calls import who
from tests.support.processes import EchoServer
from tests.support.scripted import connected
from tests.support.waiting import until, wait_until

import etcd_grpc
from etcd_grpc.balancer import with_hash_key

# Two choices, with replacement, leave even the worst of n endpoints 1/n² of the calls (gRFC A48): with
# four that is a quarter of its share.  A third choice makes it a sixteenth.
EWMA = {"least_request": {"load": "peak_ewma", "choiceCount": 3}}


def guarded(**settings) -> list:
    """Outlier detection over least request."""
    return [{"outlier_detection": {"childPolicy": [EWMA], **settings}}]


@pytest.fixture
def servers(announce) -> Iterator[list[EchoServer]]:
    """Four servers of this test's own, announced."""
    with contextlib.ExitStack() as stack:
        made = [stack.enter_context(EchoServer()) for _ in range(4)]
        for server in made:
            announce(server.address)
        yield made


def warmed(channel: etcd_grpc.Channel, count: int):
    """A call, once it goes to any of the endpoints."""
    call = channel.unary_unary("/echo/UnaryUnary")
    call(b"x", timeout=10)
    wait_until(connected(channel, count), "all connected")
    # After it, the picker of all of them is published.
    channel._dispatcher._running.plane.session.run(lambda _: None, None)
    return call


async def aio_warmed(channel: grpc.aio.Channel, count: int):
    """The same in asyncio."""
    call = channel.unary_unary("/echo/UnaryUnary")
    await call(b"x", timeout=10)
    await until(connected(channel, count), "all connected")
    await call(b"x", timeout=10)  # meanwhile their picker is published
    return call


def failures(channel: grpc.aio.Channel) -> int:
    return sum(row.failures for row in channel.explain().endpoints)


def shares(channel: grpc.Channel) -> dict[str, float]:
    return {row.address: row.share for row in channel.explain().endpoints}


def test_ring_hash_sends_a_header_where_it_went_before(etcd, service, servers):
    policy = [{"ring_hash": {"requestHashHeader": "user"}}]
    with etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd, policy=policy) as channel:
        call = warmed(channel, 4)

        def at(user: str) -> str:
            return who(call(b"x", metadata=(("user", user),), timeout=20))

        first = {user: at(user) for user in map(str, range(100))}
        assert len(set(first.values())) == 4
        for user, server in first.items():
            assert at(user) == server
            future = call.future(b"x", metadata=(("user", user),), timeout=20)
            assert who(future.result()) == server
        servers[0].kill()
        wait_until(lambda: {r.state for r in channel.explain().endpoints} != {"READY"}, "noticed")
        for user, server in first.items():
            if server != servers[0].address:
                assert at(user) == server


def test_a_key_given_with_the_call_places_it_and_is_not_sent(etcd, service, servers):
    with etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd, policy="ring_hash") as channel:
        call = warmed(channel, 4)
        first = {}
        for user in map(str, range(20)):
            first[user] = who(call(b"x", metadata=with_hash_key(user), timeout=20))
        assert len(set(first.values())) > 1
        for user, server in first.items():
            keyed = with_hash_key(user, (("a", "b"),))
            assert who(call(b"x", metadata=keyed, timeout=20)) == server
            assert who(call.future(b"x", metadata=keyed, timeout=20).result()) == server


async def test_a_key_given_with_an_asyncio_call_places_it(etcd, service, servers):
    async with etcd_grpc.aio.insecure_channel(
        f"etcd:///{service}", etcd=etcd, policy="ring_hash"
    ) as channel:
        call = await aio_warmed(channel, 4)
        for user in map(str, range(10)):
            keyed = with_hash_key(user, (("a", "b"),))
            answered = {who(await call(b"x", metadata=keyed, timeout=20)) for _ in range(5)}
            assert len(answered) == 1


async def test_ring_hash_in_asyncio(etcd, service, servers):
    policy = [{"ring_hash": {"requestHashHeader": "user"}}]
    async with etcd_grpc.aio.insecure_channel(
        f"etcd:///{service}", etcd=etcd, policy=policy
    ) as channel:
        call = await aio_warmed(channel, 4)
        for user in map(str, range(10)):
            answers = {who(await call(b"x", metadata=(("user", user),), timeout=20)) for _ in range(5)}
            assert len(answers) == 1


def test_a_subset_connects_to_no_others(etcd, service, servers):
    policy = [{"subset": {"subsetSize": 2, "childPolicy": [{"round_robin": {}}]}}]
    with etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd, policy=policy) as channel:
        call = warmed(channel, 2)
        answered = {who(call(b"x", timeout=20)) for _ in range(20)}
        assert len(answered) == 2
        next(server for server in servers if server.address in answered).kill()
        wait_until(connected(channel, 1), "noticed")
        # Its entry is still there, so it keeps its place; the other one answers.
        assert {who(call(b"x", timeout=20)) for _ in range(20)} < answered


def test_a_server_that_fails_fast_is_ejected_and_comes_back(etcd, service, servers, announce):
    """A black hole: an answer that comes at once, and is a failure."""
    policy = guarded(consecutiveFailures=5, baseEjectionTime="0.5s", interval="0.2s")
    with etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd, policy=policy) as channel:
        call = warmed(channel, 4)
        abort = channel.unary_unary("/echo/Abort")

        def ejected() -> list:
            return [row for row in channel.explain().endpoints if row.why]

        def one_more_failure() -> list:
            with pytest.raises(grpc.RpcError):
                abort(b"INTERNAL by its own fault", timeout=20)
            return ejected()

        # Only one of them fails: calls that abort are sent until one endpoint has had five in a row.
        (row,) = wait_until(one_more_failure, "one is ejected")
        # A call is counted a moment after its error is raised, so a sixth may have gone there.
        failures, _, rest = row.why.partition(" ")
        assert int(failures) >= 5
        assert rest == "failures in a row"
        assert json.loads(channel.explain().to_json())["endpoints"]
        # The ejection is decided first, and the picker without it published a moment later.
        wait_until(
            lambda: row.address not in {who(call(b"x", timeout=20)) for _ in range(40)}, "no calls", 4
        )
        wait_until(
            lambda: row.address in {who(call(b"x", timeout=20)) for _ in range(8)}, "tried again", 30
        )
        wait_until(lambda: not ejected(), "well again")


async def test_asyncio_streams_and_calls_report_how_they_ended(etcd, service, servers):
    policy = guarded(consecutiveFailures=3, interval="0.2s")
    async with etcd_grpc.aio.insecure_channel(
        f"etcd:///{service}", etcd=etcd, policy=policy
    ) as channel:
        call = channel.unary_unary("/echo/UnaryUnary")
        for _ in range(40):
            await call(b"x", timeout=10)
        stream = channel.unary_stream("/echo/UnaryStream")
        assert [who(reply) async for reply in stream(b"x", timeout=20)]
        with contextlib.suppress(grpc.RpcError):
            await channel.unary_unary("/echo/Abort")(b"INTERNAL x", timeout=20)
        with contextlib.suppress(grpc.RpcError):
            async for _ in channel.unary_stream("/echo/Abort")(b"INTERNAL x", timeout=20):
                pass
        await until(lambda: failures(channel) == 2, "both failures are told")
        explained = channel.explain()
        assert sum(row.in_flight for row in explained.endpoints) == 0
        assert all(row.load_ms is not None for row in explained.endpoints if row.picks)
        assert "outlier_detection" in str(explained)


def test_explain_tells_shares_and_states(etcd, service, servers):
    with etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel:
        assert channel.explain() is None
        call = warmed(channel, 4)
        for _ in range(400):
            call(b"x", timeout=20)
        told = shares(channel)
        assert set(told) == {server.address for server in servers}
        assert all(abs(share - 0.25) < 0.02 for share in told.values())
        assert "round_robin" in str(channel.explain())


async def test_asyncio_calls_are_counted_out_once_however_they_end(etcd, service, servers):
    """Calls that stay under way beside them show one that was counted out too often."""
    async with etcd_grpc.aio.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel:
        slow = channel.unary_unary("/echo/Slow")
        await slow(b"0", timeout=10)
        standing = [slow(b"60", timeout=120) for _ in range(8)]
        for _ in range(8):
            await slow(b"0", timeout=10)
            unsent = slow(b"0", timeout=10)
            unsent.cancel()
            sent = slow(b"20", timeout=60)
            task = asyncio.create_task(awaited(slow(b"20", timeout=60)))
            late = slow(b"20", timeout=0.05)
            await asyncio.sleep(0.05)
            sent.cancel()
            task.cancel()
            for call in (unsent, sent, task):
                with pytest.raises(asyncio.CancelledError):
                    await call
            for failing in (late, channel.unary_unary("/echo/Abort")(b"INTERNAL x", timeout=20)):
                with pytest.raises(grpc.RpcError):
                    await failing
        assert sum(row.in_flight for row in channel.explain().endpoints) == len(standing)
        for call in standing:
            call.cancel()
        assert sum(row.in_flight for row in channel.explain().endpoints) == 0
        assert len(await asyncio.gather(*standing, return_exceptions=True)) == len(standing)


async def awaited(call):
    return await call
