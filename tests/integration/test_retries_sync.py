"""Calls of synchronous channels that are sent again, or must not be, on real servers."""

from __future__ import annotations

import collections
import gc
import threading
import time
from collections.abc import Iterator

import grpc
import pytest
from tests.support.calls import RETRY, retry_on, who
from tests.support.scripted import ScriptedServer, announced, in_flight, opened, script
from tests.support.waiting import wait_until

FAILS = {"code": "UNAVAILABLE"}
LONG_BACKOFF = retry_on("UNAVAILABLE", backoff="60s")


@pytest.fixture
def servers(announce) -> Iterator[list[ScriptedServer]]:
    """Two scripted servers, announced."""
    with announced(announce, 2) as made:
        yield made


@pytest.fixture
def channel(etcd, service, servers):
    with opened(etcd, service) as channel:
        yield channel


def by_call(method, request: bytes) -> bytes:
    return method(request, timeout=20)


def by_with_call(method, request: bytes) -> bytes:
    return method.with_call(request, timeout=20)[0]


def by_future(method, request: bytes) -> bytes:
    return method.future(request, timeout=20).result()


WAYS = [by_call, by_with_call, by_future]


@pytest.mark.parametrize("call", WAYS)
def test_call_is_sent_again_to_the_other_server(channel, servers, call):
    bad, good = servers
    names = []
    for _ in range(2):  # one of the two, at least, begins at the server that fails
        name, request = script({bad.address: FAILS})
        assert who(call(channel.unary_unary("/script/Unary"), request)) == good.address
        assert good.saw(name) == ["began", "answered"]
        names.append(name)
    assert any(bad.saw(name) == ["began", "failed"] for name in names)


@pytest.mark.parametrize("call", WAYS)
def test_calls_are_spread_over_two_servers_also_where_a_timeout_is_configured(
    etcd, service, servers, call
):
    config = {"methodConfig": [{"name": [{}], "timeout": "20s"}]}
    with opened(etcd, service, config) as channel:
        method = channel.unary_unary("/script/Unary")
        counts = collections.Counter(who(call(method, script()[1])) for _ in range(20))
    assert counts == {server.address: 10 for server in servers}


@pytest.mark.parametrize("call", WAYS)
def test_pushback_is_obeyed(channel, servers, call):
    method = channel.unary_unary("/script/Unary")
    name, request = script({"*": {"code": "UNAVAILABLE", "pushback": "-1"}})
    with pytest.raises(grpc.RpcError):
        call(method, request)
    assert sorted(servers[0].saw(name) + servers[1].saw(name)) == ["began", "failed"]
    bad, good = servers
    for _ in range(3):  # until one begins at the server that fails
        name, request = script({bad.address: {"code": "UNAVAILABLE", "pushback": "700"}})
        call(method, request)
        if bad.saw(name):
            break
    (_, failed), (began, _) = bad.seen(name), good.seen(name)
    assert began["at"] - failed["at"] >= 0.69


@pytest.mark.parametrize("own_retries", [True, False])
def test_header_of_previous_attempts_arrives_if_c_core_does_not_retry(
    etcd, service, servers, own_retries
):
    """What docs/retries.md says of ``grpc-previous-rpc-attempts``; C-core keeps it for itself."""
    options = () if own_retries else (("grpc.enable_retries", 0),)
    with opened(etcd, service, options=options) as channel:
        name, request = script({"*": FAILS})
        with pytest.raises(grpc.RpcError):
            channel.unary_unary("/script/Unary")(request, metadata=(("mine", "1"),), timeout=20)
        events = [event for server in servers for event in server.seen(name)]
    events.sort(key=lambda event: event["at"])
    began = [event["headers"] for event in events if event["what"] == "began"]
    assert [headers["mine"] for headers in began] == ["1"] * 4
    numbers = [headers.get("grpc-previous-rpc-attempts") for headers in began]
    assert numbers == ([None] * 4 if own_retries else [None, "1", "2", "3"])


def test_throttling_stops_retries(etcd, service, servers):
    config = {**RETRY, "retryThrottling": {"maxTokens": 4, "tokenRatio": 0.5}}
    with opened(etcd, service, config) as channel:
        method = channel.unary_unary("/script/Unary")
        tried = []
        for _ in range(3):
            name, request = script({"*": FAILS})
            with pytest.raises(grpc.RpcError):
                method(request, timeout=20)
            tried.append(sum(server.saw(name).count("began") for server in servers))
        assert tried == [2, 1, 1]  # 4 tokens, then 3, 2: half
        for _ in range(8):
            method(script()[1], timeout=20)
        name, request = script({"*": FAILS})
        with pytest.raises(grpc.RpcError):
            method(request, timeout=20)
        assert sum(server.saw(name).count("began") for server in servers) == 2


def test_deadline_covers_all_attempts(etcd, service, servers):
    with opened(etcd, service, LONG_BACKOFF) as channel:
        for call in (
            lambda method, request: method(request, timeout=30),
            lambda method, request: method.future(request, timeout=30).result(),
        ):
            began = time.monotonic()
            with pytest.raises(grpc.RpcError) as caught:
                call(channel.unary_unary("/script/Unary"), script({"*": FAILS})[1])
            # Another attempt would come after the deadline, so the failure is told at once.
            assert time.monotonic() - began < 20
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_future_is_cancelled_between_attempts(etcd, service, servers):
    with opened(etcd, service, LONG_BACKOFF) as channel:
        name, request = script({"*": FAILS})
        future = channel.unary_unary("/script/Unary").future(request)
        called = threading.Event()
        future.add_done_callback(lambda _: called.set())
        wait_until(lambda: "failed" in servers[0].saw(name) + servers[1].saw(name), "failed once")
        wait_until(lambda: not in_flight(channel), "the attempt has ended")
        assert not future.done()
        assert future.cancel()
        assert future.cancelled()
        assert future.code() is grpc.StatusCode.CANCELLED
        assert called.wait(10)
        with pytest.raises(grpc.FutureCancelledError):
            future.result()


def test_closing_the_channel_ends_calls_between_attempts(etcd, service, servers):
    with opened(etcd, service, LONG_BACKOFF) as channel:
        name, request = script({"*": FAILS})
        future = channel.unary_unary("/script/Unary").future(request)
        stream = channel.unary_stream("/script/Stream")(request)
        wait_until(lambda: [s.saw(name).count("failed") for s in servers] == [1, 1], "failed once each")
        wait_until(lambda: not in_flight(channel), "the attempts have ended")
        channel.close()
        assert future.code() is grpc.StatusCode.CANCELLED
        assert stream.code() is grpc.StatusCode.CANCELLED


def test_closing_the_channel_wakes_who_waits_for_the_next_attempt(etcd, service, servers):
    with opened(etcd, service, LONG_BACKOFF) as channel:
        name, request = script({"*": FAILS})
        failures: list[grpc.RpcError] = []

        def call() -> None:
            try:
                channel.unary_unary("/script/Unary")(request)
            except grpc.RpcError as error:
                failures.append(error)

        thread = threading.Thread(target=call)
        thread.start()
        wait_until(lambda: "failed" in servers[0].saw(name) + servers[1].saw(name), "failed once")
        wait_until(lambda: not in_flight(channel), "the attempt has ended")
        channel.close()
        thread.join(timeout=20)
        assert [error.code() for error in failures] == [grpc.StatusCode.CANCELLED]


# Streams of responses.


def test_stream_that_fails_before_its_first_message_is_sent_again(channel, servers):
    bad, good = servers
    for _ in range(2):
        name, request = script({bad.address: FAILS})
        call = channel.unary_stream("/script/Stream")(request, timeout=20)
        called = threading.Event()
        call.add_done_callback(lambda _: called.set())  # noqa: B023
        assert [who(reply) for reply in call] == [good.address] * 2
        assert call.code() is grpc.StatusCode.OK
        assert called.wait(10)
        assert good.saw(name) == ["began", "answered"]


def test_stream_whose_server_is_killed_before_its_first_message_is_sent_again(channel, servers):
    dies, good = servers
    calls = []
    for _ in range(2):
        name, request = script({dies.address: {"sleep_s": 0.5, "die": True}})
        calls.append((name, channel.unary_stream("/script/Stream")(request, timeout=30)))
    for name, call in calls:
        assert [who(reply) for reply in call] == [good.address] * 2
        assert good.saw(name) == ["began", "answered"]


@pytest.mark.parametrize("end", [{"code": "UNAVAILABLE"}, {"die": True, "die_after_s": 0.5}])
def test_stream_is_never_sent_again_after_its_first_message(channel, servers, end):
    one, other = servers
    name, request = script({"*": {"messages": 1, **end}})
    call = channel.unary_stream("/script/Stream")(request, timeout=20)
    reply = next(call)
    with pytest.raises(grpc.RpcError) as caught:
        next(call)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert call.code() is grpc.StatusCode.UNAVAILABLE
    time.sleep(0.3)  # longer than the longest backoff: the point is that nothing comes
    left = one if one.address != who(reply) else other
    assert left.saw(name) == []


def test_many_streams_that_end_with_their_first_message_are_never_sent_again(channel, servers):
    """The message and the failure arrive together, on another thread than the reader's."""
    names = []
    for _ in range(100):
        name, request = script({"*": {"messages": 1, "code": "UNAVAILABLE"}})
        call = channel.unary_stream("/script/Stream")(request, timeout=20)
        assert next(call)
        with pytest.raises(grpc.RpcError):
            next(call)
        names.append(name)
    began = [sum(server.saw(name).count("began") for server in servers) for name in names]
    assert began == [1] * 100


def test_stream_of_which_the_metadata_was_seen_is_not_sent_again(channel, servers):
    name, request = script({"*": {"headers": True, "sleep_s": 3, "code": "UNAVAILABLE"}})
    call = channel.unary_stream("/script/Stream")(request, timeout=20)
    assert ("sent", "early") in tuple(call.initial_metadata())
    with pytest.raises(grpc.RpcError):
        next(call)
    assert sorted(servers[0].saw(name) + servers[1].saw(name)) == ["began", "failed", "waits"]


def test_metadata_of_a_stream_that_is_sent_again_are_the_last_attempts(channel, servers):
    bad, _ = servers
    for _ in range(2):
        _, request = script({bad.address: FAILS, "*": {"headers": True}})
        call = channel.unary_stream("/script/Stream")(request, timeout=20)
        assert ("sent", "early") in tuple(call.initial_metadata())
        assert len(list(call)) == 2


def test_stream_that_nobody_reads_is_settled(channel, servers):
    name, request = script({"*": FAILS})
    call = channel.unary_stream("/script/Stream")(request, timeout=20)
    called = threading.Event()
    call.add_callback(called.set)
    assert called.wait(20)
    assert call.code() is grpc.StatusCode.UNAVAILABLE
    assert sum(server.saw(name).count("began") for server in servers) == 4  # maxAttempts


@pytest.mark.parametrize("policy", ["round_robin", [{"outlier_detection": {}}]])
def test_stream_that_the_application_drops_is_cancelled(etcd, service, servers, policy):
    """As on a plain channel, whatever the policy wants to know of calls."""
    with opened(etcd, service, policy=policy) as channel:
        name, request = script({"*": {"messages": 1, "sleep_s": 60}})
        call = channel.unary_stream("/script/Stream")(request)
        assert next(call)

        def saw() -> list[str]:
            return servers[0].saw(name) + servers[1].saw(name)

        wait_until(lambda: saw() == ["began", "waits"], "the second message is awaited there")
        del call
        gc.collect()
        wait_until(lambda: saw() == ["began", "waits", "cancelled"], "cancelled there")
