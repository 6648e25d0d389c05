"""Rows 22 and 27 to 30: instances that die, hang, are slow or fail, under load."""

from __future__ import annotations

import contextlib
import signal
import statistics
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest
from tests.faults.conftest import allowed
from tests.support.calls import RETRY
from tests.support.etcd import RawEtcd
from tests.support.load import Load
from tests.support.processes import EchoServer
from tests.support.report import record
from tests.support.waiting import wait_until

import etcd_grpc
from etcd_grpc.telemetry import events
from etcd_grpc.testing import Cluster, Proxy

PANIC = (events.PanicStarted, events.PanicEnded)

# Even the worst of four gets 4^-k of the calls, where k are compared: for two a quarter of its share.
EWMA = {"least_request": {"load": "peak_ewma", "choiceCount": 3}}


@pytest.fixture(scope="module")
def etcd() -> Iterator[str]:
    with Cluster(1) as cluster:
        yield cluster.endpoints[0]


@pytest.fixture
def raw(etcd: str) -> Iterator[RawEtcd]:
    with RawEtcd(etcd) as client:
        yield client


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as made:
        yield made


def balanced(policy: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A service config."""
    return {"loadBalancingConfig": [policy], **more}


def guarded(child: dict[str, Any], **settings: Any) -> dict[str, Any]:
    return {"outlier_detection": {"childPolicy": [child], **settings}}


def started(stack: contextlib.ExitStack, service: str, etcd: str, count: int, **how: Any):
    """Registered servers."""
    return [stack.enter_context(EchoServer(register=service, etcd=etcd, **how)) for _ in range(count)]


def black_hole(stack: contextlib.ExitStack, service: str, etcd: str) -> str:
    """A registered server that fails every call, at once; returns its address."""
    server = grpc.server(futures.ThreadPoolExecutor(2), options=[("grpc.so_reuseport", 0)])
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    stack.callback(lambda: server.stop(None).wait(10))
    stack.enter_context(etcd_grpc.register(service, address=address, etcd=etcd, settle_s=0))
    return address


def row_of(channel: etcd_grpc.Channel, address: str) -> Any:
    explained = channel.explain()
    assert explained is not None
    return next(row for row in explained.endpoints if row.address == address)


def states(channel: etcd_grpc.Channel) -> list[str]:
    explained = channel.explain()
    return [row.state for row in explained.endpoints] if explained else []


def test_row_22_killed_under_load_with_streams_open(etcd, service, raw, stack, recovers):
    ttl_s = 2
    servers = started(stack, service, etcd, 3, ttl_s=ttl_s)
    load = stack.enter_context(Load(service, [etcd], service_config=RETRY))
    wait_until(lambda: states(load.channel) == ["READY"] * 3, "all are connected")
    pending, ended, told = threading.Event(), {}, {}

    def requests() -> Iterator[bytes]:
        yield b"one"
        pending.wait(60)

    def follow(number: int, stream: Any) -> None:
        told[number] = next(stream).split()[0].decode()
        try:
            next(stream, None)
        except grpc.RpcError as error:
            ended[number] = (time.monotonic(), error.code())

    threads = []
    try:
        # The load takes turns with them: which of them go to which server is not known before.
        while len(threads) < 6 or len(set(told.values())) < 2:
            number = len(threads)
            stream = load.channel.stream_stream("/echo/StreamStream")(requests())
            threads.append(threading.Thread(target=follow, args=(number, stream)))
            threads[-1].start()
            wait_until(lambda: number in told, "the stream has begun")  # noqa: B023
        killed = next(server for server in servers if server.address == told[0])
        on_it = {number for number, address in told.items() if address == killed.address}
        load.forget()
        killed.process.kill()
        began = time.monotonic()
        recovers(
            22, "server killed: until its streams have ended", lambda: on_it <= set(ended), 1, began
        )
        assert set(ended) == on_it, "and no others"
        assert {code for _, code in ended.values()} == {grpc.StatusCode.UNAVAILABLE}
        recovers(
            22,
            f"server killed: until its key is gone (TTL {ttl_s} s)",
            lambda: (
                not any(killed.address.encode() in e.value for e in raw.get(f"{service}/").values())
            ),
            ttl_s + 2,
            began,
        )
        load.assert_clean()
        load.forget()
        wait_until(lambda: load.answers.total() > 100, "the others are called")
        assert killed.address not in load.answers
    finally:
        pending.set()
        for thread in threads:
            thread.join(30)


async def test_row_22_asyncio_streams_of_a_killed_server_end(etcd, service, stack):
    servers = started(stack, service, etcd, 3, ttl_s=60)
    async with etcd_grpc.aio.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel:
        call = channel.stream_stream("/echo/StreamStream")
        on = {}
        while len(set(on.values())) < 3:
            stream = call(timeout=60)
            await stream.write(b"one")
            on[stream] = (await stream.read()).split()[0].decode()
        killed = servers[0]
        killed.process.kill()
        began = time.monotonic()
        for stream, address in on.items():
            if address == killed.address:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await stream.read()
                assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        took_s = time.monotonic() - began
        record(22, "server killed: until its asyncio streams have ended", took_s, 1)
        assert took_s < allowed(1)
        for stream, address in on.items():
            if address != killed.address:
                await stream.write(b"two")
                assert (await stream.read()).split()[0].decode() == address
                stream.cancel()


def test_row_22_a_dead_endpoint_is_picked_again_when_it_accepts_connections(
    etcd, service, port, raw, stack, recovers
):
    """Its key stays, as with a long TTL."""
    (killed,) = started(stack, service, etcd, 1, ttl_s=60, port=port)
    started(stack, service, etcd, 2, ttl_s=60)
    load = stack.enter_context(Load(service, [etcd], service_config=RETRY))
    wait_until(lambda: states(load.channel) == ["READY"] * 3, "all are connected")
    killed.kill()
    wait_until(lambda: row_of(load.channel, killed.address).state != "READY", "noticed")
    load.forget()
    wait_until(lambda: load.answers.total() > 100, "whoever had picked it has gone elsewhere")
    before = row_of(load.channel, killed.address).picks
    load.forget()
    wait_until(lambda: load.answers.total() > 100, "others are called")
    assert row_of(load.channel, killed.address).picks == before
    again = stack.enter_context(EchoServer(port=killed.port))
    began = time.monotonic()
    # gRPC's own backoff of about 1 s: nobody has written the key again.
    recovers(
        22,
        "server back at its address: until it is called again",
        lambda: load.last_answer.get(again.address, 0.0) > began,
        5,
        began,
    )
    load.assert_clean()


def test_row_27_accepts_and_hangs(etcd, service, stack, recovers):
    servers = started(stack, service, etcd, 4, ttl_s=60)
    policy = guarded({"round_robin": {}}, consecutiveBaseEjectionTime="0.5s")
    load = stack.enter_context(
        Load(service, [etcd], threads=8, timeout_s=0.3, service_config=balanced(policy))
    )
    wait_until(lambda: states(load.channel) == ["READY"] * 4, "all are connected")
    hung = servers[0]
    hung.process.send_signal(signal.SIGSTOP)
    whys = []

    def ejected() -> str:
        whys.append(row_of(load.channel, hung.address).why)  # soon it is another: "failed when tried"
        return whys[-1]

    try:
        began = time.monotonic()
        recovers(27, "server hangs: until it is ejected (deadlines of 0.3 s)", ejected, 5, began)
        assert "failures in a row" in whys[-1]
        assert row_of(load.channel, hung.address).state == "READY", "it does accept"
        # Eight threads call at once, and those that met it before have to end first.
        wait_until(lambda: row_of(load.channel, hung.address).in_flight == 0, "nobody waits for it")
        failed = row_of(load.channel, hung.address).failures
        seen = set()

        def probed_three_times() -> bool:
            row = row_of(load.channel, hung.address)
            seen.add(row.in_flight)
            return row.failures >= failed + 3

        wait_until(probed_three_times, "it is tried now and then", 60, poll_s=0.002)
        assert seen == {0, 1}, "one at a time"
    finally:
        hung.process.send_signal(signal.SIGCONT)
    began = time.monotonic()
    load.failures.clear()
    recovers(
        27,
        "server answers again: until it is called as before",
        lambda: (
            not row_of(load.channel, hung.address).why
            and load.last_answer.get(hung.address, 0.0) > began
        ),
        10,
        began,
    )


def test_row_28_ten_times_slower(etcd, service, stack, recovers):
    started(stack, service, etcd, 3, ttl_s=60)
    slow = stack.enter_context(EchoServer())
    network = stack.enter_context(Proxy(slow.address))
    stack.enter_context(etcd_grpc.register(service, address=network.address, etcd=etcd, settle_s=0))
    load = stack.enter_context(Load(service, [etcd], service_config=balanced(guarded(EWMA))))
    wait_until(lambda: states(load.channel) == ["READY"] * 4, "all are connected")
    wait_until(lambda: load.answers.total() > 100, "it is known how fast they are")
    rows = load.channel.explain().endpoints
    usual_s = statistics.median(row.load_ms for row in rows) / 1000
    network.delay(min(max(0.02, 5 * usual_s), 0.5))  # and as much on the way back
    began = time.monotonic()
    before = {row.address: row.picks for row in rows}

    def share() -> float:
        picks = {
            row.address: row.picks - before[row.address] for row in load.channel.explain().endpoints
        }
        return picks[network.address] / (sum(picks.values()) or 1)

    def little() -> bool:
        return load.answers.total() > 100 and share() < 1 / 4 / 4

    load.forget()
    recovers(28, "ten times slower: until it has less than a quarter of its share", little, 5, began)
    wait_until(lambda: load.answers.total() > 300 and little(), "the load goes on, and it stays so", 30)
    assert not any(row.why for row in load.channel.explain().endpoints), "not ejected"
    load.assert_clean()


def test_row_29_fails_fast(etcd, service, stack, recovers):
    """A black hole: the fastest of all, and a load that knows no failures would send it everything."""
    started(stack, service, etcd, 3, ttl_s=60)
    policy = guarded(EWMA, consecutiveBaseEjectionTime="60s")  # not tried again in this test
    load = stack.enter_context(Load(service, [etcd], service_config=balanced(policy)))
    hole = black_hole(stack, service, etcd)
    wait_until(lambda: states(load.channel) == ["READY"] * 4, "all are connected")
    began = time.monotonic()
    recovers(29, "fails fast: until it is ejected", lambda: row_of(load.channel, hole).why, 10, began)
    load.forget()
    wait_until(lambda: load.answers.total() > 50, "nobody picks it any more")
    # Five in a row, and what was called until that was decided; a hole that attracts would get it all.
    assert 5 <= len(load.failures) < 25
    load.failures.clear()
    load.forget()
    wait_until(lambda: load.answers.total() > 100, "the others are called")
    load.assert_clean()


def test_row_30_more_than_half_are_unhealthy(etcd, service, stack, told):
    """All are used, and it is said so, until enough are left again."""
    started(stack, service, etcd, 1, ttl_s=60)
    policy = guarded({"round_robin": {}}, maxEjectionPercent=100)
    load = stack.enter_context(Load(service, [etcd], service_config=balanced(policy)))
    with contextlib.ExitStack() as holes:
        for _ in range(3):
            black_hole(holes, service, etcd)
        wait_until(lambda: states(load.channel) == ["READY"] * 4, "all are connected")
        began = time.monotonic()

        def panicking() -> bool:
            return load.channel.explain().panicking

        wait_until(panicking, "panic", 30)
        record(30, "three of four fail: until all are used", time.monotonic() - began, 10)
        said = "panic: all endpoints are used"
        wait_until(lambda: said in str(load.channel.explain()), "it stands in the explanation")
        before = {row.address: row.picks for row in load.channel.explain().endpoints}
        wait_until(
            lambda: all(row.picks > before[row.address] for row in load.channel.explain().endpoints),
            "all get calls",
        )
        # Before all of them were there two of three may have been enough for a first panic.
        begun = wait_until(
            lambda: [e for e in told if isinstance(e, events.PanicStarted)], "it is told"
        )
        assert {event.service for event in begun} == {service}
    wait_until(lambda: not panicking(), "the broken ones have left")
    wait_until(
        lambda: [type(e) for e in told if isinstance(e, PANIC)][-1:] == [events.PanicEnded],
        "it is told",
    )
