"""Hedged calls of synchronous channels on real servers."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Iterator

import grpc
import pytest
from tests.support import scripted
from tests.support.calls import free_port, who
from tests.support.scripted import ScriptedServer, announced, hedge, in_flight, script
from tests.support.waiting import wait_until

import etcd_grpc

HANGS = {"sleep_s": 60}


@pytest.fixture
def servers(announce) -> Iterator[list[ScriptedServer]]:
    """Three scripted servers, announced."""
    with announced(announce, 3) as made:
        yield made


opened = functools.partial(scripted.opened, count=3)


def saw(servers: list[ScriptedServer], name: str) -> list[str]:
    """What all of them saw, sorted."""
    return sorted(what for server in servers for what in server.saw(name))


def by_call(method, request: bytes, **arguments) -> bytes:
    return method(request, **arguments)


def by_with_call(method, request: bytes, **arguments) -> bytes:
    reply, call = method.with_call(request, **arguments)
    assert call.code() is grpc.StatusCode.OK
    assert call.done()
    return reply


def by_future(method, request: bytes, **arguments) -> bytes:
    return method.future(request, **arguments).result()


WAYS = pytest.mark.parametrize("call", [by_call, by_with_call, by_future])


@WAYS
def test_hedge_goes_to_another_server_and_the_slow_one_is_cancelled(etcd, service, servers, call):
    slow = servers[0]
    with opened(etcd, service, hedge(2, "0.1s")) as channel:
        method = channel.unary_unary("/script/Unary")
        hedged = 0
        for _ in range(30):  # until one is seen to begin at the slow server
            name, request = script({slow.address: HANGS})
            assert who(call(method, request, timeout=30)) != slow.address
            if slow.saw(name):
                hedged += 1
                wait_until(lambda: "cancelled" in slow.saw(name), "cancelled there")  # noqa: B023
                assert saw(servers, name) == ["answered", "began", "began", "cancelled", "waits"]
                break
        assert hedged
        wait_until(lambda: not in_flight(channel), "nothing in flight")
        assert all(row.failures == 0 for row in channel.explain().endpoints)


@WAYS
def test_without_a_delay_all_are_asked_at_once(etcd, service, servers, call):
    name, request = script({servers[2].address: {"sleep_s": 4}, "*": HANGS})
    with opened(etcd, service, hedge(3, "0s")) as channel:
        assert who(call(channel.unary_unary("/script/Unary"), request)) == servers[2].address
        wait_until(lambda: saw(servers, name).count("cancelled") == 2, "the others are cancelled")
        assert saw(servers, name).count("began") == 3


def test_no_server_is_asked_twice_while_there_is_another(etcd, service, servers):
    with opened(etcd, service, hedge(3, "0.05s")) as channel:
        for _ in range(4):
            name, request = script({"*": HANGS})
            future = channel.unary_unary("/script/Unary").future(request)
            wait_until(lambda: saw(servers, name).count("waits") == 3, "all are asked")  # noqa: B023
            assert [server.saw(name) for server in servers] == [["began", "waits"]] * 3
            assert future.cancel()
            assert future.cancelled()
            wait_until(lambda: saw(servers, name).count("cancelled") == 3, "cancelled")  # noqa: B023


def test_statistics_of_a_loser_say_only_that_it_is_slow(etcd, service, servers):
    slow = servers[0]
    policy = [{"outlier_detection": {"childPolicy": [{"round_robin": {}}]}}]
    with opened(etcd, service, hedge(2, "0.1s"), policy=policy) as channel:
        method = channel.unary_unary("/script/Unary")
        for _ in range(12):
            method(script({slow.address: HANGS})[1], timeout=30)
        wait_until(lambda: not in_flight(channel), "nothing in flight")
        rows = {row.address: row for row in channel.explain().endpoints}
    assert rows[slow.address].picks >= 4
    assert rows[slow.address].load_ms > 50  # the delay, less what fades in seconds
    assert {row.failures for row in rows.values()} == {0}
    assert {row.why for row in rows.values()} == {""}


@WAYS
def test_failure_that_is_not_fatal_brings_the_next_server_at_once(etcd, service, servers, call):
    acts = {server.address: {"code": "UNAVAILABLE"} for server in servers[:2]}
    with opened(etcd, service, hedge(3, "60s")) as channel:
        for _ in range(3):
            name, request = script(acts)
            began = time.monotonic()
            reply = call(channel.unary_unary("/script/Unary"), request, timeout=50)
            assert who(reply) == servers[2].address
            assert time.monotonic() - began < 40
            assert saw(servers, name).count("answered") == 1


@WAYS
def test_fatal_failure_ends_the_call_and_the_others(etcd, service, servers, call):
    fails = servers[0].address
    with opened(etcd, service, hedge(3, "0s")) as channel:
        name, request = script({fails: {"sleep_s": 4, "code": "FAILED_PRECONDITION"}, "*": HANGS})
        with pytest.raises(grpc.RpcError) as caught:
            call(channel.unary_unary("/script/Unary"), request, timeout=50)
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert fails in caught.value.details()
        wait_until(lambda: saw(servers, name).count("cancelled") == 2, "the others are cancelled")
    assert saw(servers, name).count("began") == 3


@WAYS
def test_when_all_fail_the_last_failure_is_told(etcd, service, servers, call):
    with opened(etcd, service, hedge(3, "0.05s")) as channel:
        name, request = script({"*": {"code": "UNAVAILABLE"}})
        with pytest.raises(grpc.RpcError) as caught:
            call(channel.unary_unary("/script/Unary"), request, timeout=50)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert saw(servers, name) == ["began", "began", "began", "failed", "failed", "failed"]


@WAYS
def test_pushback_stops_or_delays_the_next_hedge(etcd, service, servers, call):
    with opened(etcd, service, hedge(3, "60s")) as channel:
        method = channel.unary_unary("/script/Unary")
        name, request = script({"*": {"code": "UNAVAILABLE", "pushback": "-1"}})
        with pytest.raises(grpc.RpcError):
            call(method, request, timeout=50)
        assert saw(servers, name) == ["began", "failed"]
        bad = servers[0]
        for _ in range(3):  # until one begins at the server that fails
            name, request = script({bad.address: {"code": "UNAVAILABLE", "pushback": "700"}})
            call(method, request, timeout=50)
            if bad.saw(name):
                break
        (_, failed) = bad.seen(name)
        (answered,) = (s.seen(name)[0] for s in servers[1:] if s.saw(name))
        assert answered["at"] - failed["at"] >= 0.69


def test_throttling_stops_hedges(etcd, service, servers):
    config = {**hedge(3, "0s"), "retryThrottling": {"maxTokens": 2, "tokenRatio": 0.5}}
    with opened(etcd, service, config) as channel:
        method = channel.unary_unary("/script/Unary")
        for _ in range(2):
            with pytest.raises(grpc.RpcError):
                method(script({"*": {"code": "UNAVAILABLE"}})[1], timeout=50)
        name, request = script({"*": {"sleep_s": 0.3}})
        assert method(request, timeout=50)
        assert saw(servers, name) == ["answered", "began", "waits"]


@WAYS
def test_deadline_covers_all_attempts(etcd, service, servers, call):
    name, request = script({"*": HANGS})
    with opened(etcd, service, hedge(3, "0.05s")) as channel:
        began = time.monotonic()
        with pytest.raises(grpc.RpcError) as caught:
            call(channel.unary_unary("/script/Unary"), request, timeout=3)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert time.monotonic() - began < 20
        wait_until(lambda: saw(servers, name).count("cancelled") == 3, "ended everywhere")


@WAYS
def test_server_that_dies_is_made_good_by_a_hedge(etcd, service, servers, call):
    dies = servers[0]
    with opened(etcd, service, hedge(3, "60s")) as channel:
        for _ in range(3):
            _, request = script({dies.address: {"die": True}})
            reply = call(channel.unary_unary("/script/Unary"), request, timeout=50)
            assert who(reply) != dies.address
        assert dies.process.wait(10)


def test_hedge_without_a_second_endpoint_goes_to_the_first(etcd, service, announce):
    with ScriptedServer() as only:
        announce(only.address)
        with opened(etcd, service, hedge(2, "0.05s"), count=1) as channel:
            name, request = script({"*": {"sleep_s": 4}})
            assert channel.unary_unary("/script/Unary")(request, timeout=30)
            assert only.saw(name).count("began") == 2


@WAYS
def test_hedged_call_waits_for_its_first_endpoint_and_fails_without(etcd, service, announce, call):
    with etcd_grpc.insecure_channel(
        f"etcd:///{service}", etcd=etcd, service_config=hedge(2, "0s")
    ) as channel:
        method = channel.unary_unary("/script/Unary")
        with pytest.raises(grpc.RpcError) as caught:
            call(method, script()[1], timeout=20)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert service in caught.value.details()
        with pytest.raises(grpc.RpcError) as caught:
            call(method, script()[1], timeout=0.3, wait_for_ready=True)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        announce(f"127.0.0.1:{free_port()}")
        with ScriptedServer() as server:
            announce(server.address)
            assert who(call(method, script()[1], timeout=30, wait_for_ready=True)) == server.address


def test_future_calls_back_once_and_answers_every_question(etcd, service, servers):
    slow = servers[0]
    with opened(etcd, service, hedge(3, "0.05s")) as channel:
        for _ in range(3):
            _, request = script({slow.address: HANGS, "*": {"headers": True}})
            called: list[object] = []
            future = channel.unary_unary("/script/Unary").future(request, timeout=30)
            future.add_done_callback(called.append)
            assert ("sent", "early") in tuple(future.initial_metadata())
            assert future.code() is grpc.StatusCode.OK
            assert future.trailing_metadata() is not None
            assert future.details() is not None
            assert future.exception() is None
            assert who(future.result()) != slow.address
            wait_until(lambda: called == [future], "the callback")  # noqa: B023


def test_closing_the_channel_ends_hedged_calls(etcd, service, servers):
    with opened(etcd, service, hedge(2, "4s")) as channel:  # longer than a failure takes
        method = channel.unary_unary("/script/Unary")
        name, request = script({"*": HANGS})
        under_way = method.future(request)
        fails = {"*": {"code": "UNAVAILABLE", "pushback": "60000"}}
        (second, request), (third, last) = script(fails), script(fails)
        delayed = method.future(request)
        codes: list[grpc.StatusCode] = []

        def block() -> None:
            try:
                method(last)
            except grpc.RpcError as error:
                codes.append(error.code())

        blocked = threading.Thread(target=block)
        blocked.start()
        wait_until(lambda: saw(servers, name).count("waits") == 2, "under way", 30)
        for other in (second, third):
            wait_until(lambda name=other: "failed" in saw(servers, name), "it has failed")
        wait_until(lambda: in_flight(channel) == 2, "the others have ended")
        channel.close()
        assert under_way.code() is grpc.StatusCode.CANCELLED
        assert delayed.code() is grpc.StatusCode.CANCELLED
        blocked.join(timeout=20)
        assert codes == [grpc.StatusCode.CANCELLED]


def test_many_hedged_calls_from_many_threads_leave_nothing_behind(etcd, service, servers):
    slow = servers[0]
    failures: list[BaseException] = []
    with opened(etcd, service, hedge(3, "0.01s")) as channel:
        method = channel.unary_unary("/script/Unary")

        def work() -> None:
            try:
                for _ in range(40):
                    by_call(method, script({slow.address: {"sleep_s": 0.2}})[1], timeout=60)
                    by_future(method, script({slow.address: {"sleep_s": 0.2}})[1], timeout=60)
            except BaseException as error:  # noqa: BLE001 - told below
                failures.append(error)

        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=100)
        assert failures == []
        assert not any(thread.is_alive() for thread in threads)
        wait_until(lambda: not in_flight(channel), "nothing in flight")
