"""Synchronous calls with a stream of requests that are sent again, or must not be, on real servers."""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Iterator

import grpc
import pytest
from tests.support.calls import retry_on, who
from tests.support.scripted import ScriptedServer, announced, opened, script
from tests.support.waiting import wait_until

from etcd_grpc.channel.sync import requests as sync_requests

FAILS = {"code": "UNAVAILABLE"}
MANY = [b"%d" % number for number in range(50)]


@pytest.fixture
def servers(announce) -> Iterator[list[ScriptedServer]]:
    with announced(announce, 2) as made:
        yield made


@pytest.fixture
def channel(etcd, service, servers):
    with opened(etcd, service) as channel:
        yield channel


# Each sends requests and returns the address and what the server got after the script.


def gather_by_call(channel, requests: Iterator[bytes]) -> tuple[str, list[bytes]]:
    return parsed(channel.stream_unary("/script/Gather")(requests, timeout=20))


def gather_by_with_call(channel, requests: Iterator[bytes]) -> tuple[str, list[bytes]]:
    reply, call = channel.stream_unary("/script/Gather").with_call(requests, timeout=20)
    assert call.code() is grpc.StatusCode.OK
    return parsed(reply)


def gather_by_future(channel, requests: Iterator[bytes]) -> tuple[str, list[bytes]]:
    return parsed(channel.stream_unary("/script/Gather").future(requests, timeout=20).result())


def talk(channel, requests: Iterator[bytes]) -> tuple[str, list[bytes]]:
    replies = list(channel.stream_stream("/script/Talk")(requests, timeout=20))
    (address,) = {who(reply) for reply in replies}
    return address, [reply.split()[2] for reply in replies]


def parsed(reply: bytes) -> tuple[str, list[bytes]]:
    return who(reply), reply.split()[2].split(b",")


WAYS = [gather_by_call, gather_by_with_call, gather_by_future, talk]


def began(servers: list[ScriptedServer], name: str) -> int:
    """How many attempts servers have seen."""
    return sum(server.saw(name).count("began") for server in servers)


@pytest.mark.parametrize("call", WAYS)
def test_all_requests_are_sent_again_to_the_other_server(channel, servers, call):
    bad, good = servers
    names = []
    for _ in range(2):  # one of the two, at least, begins at the server that fails
        name, first = script({bad.address: {**FAILS, "after": 10}})
        assert call(channel, iter([first, *MANY])) == (good.address, MANY)
        assert good.saw(name) == ["began", "answered"]
        names.append(name)
    assert any(bad.saw(name) == ["began", "failed"] for name in names)


@pytest.mark.parametrize("call", WAYS)
def test_a_server_that_is_killed_amid_the_requests_costs_no_call(channel, servers, call):
    dies, good = servers
    for _ in range(2):
        _, first = script({dies.address: {"die": True, "after": 10}})
        assert call(channel, iter([first, *MANY])) == (good.address, MANY)


@pytest.mark.parametrize("call", WAYS)
def test_requests_that_come_while_the_next_attempt_is_under_way_are_all_sent(channel, servers, call):
    """The first attempt's thread waits for the application; what comes belongs to the second."""
    bad, good = servers
    for _ in range(2):
        name, first = script({bad.address: FAILS})

        def requests(name=name, first=first) -> Iterator[bytes]:
            yield first
            wait_until(lambda: "began" in good.saw(name), "the good one is asked")
            yield from MANY

        assert call(channel, requests()) == (good.address, MANY)


def test_a_conversation_goes_on_after_its_second_attempt(channel, servers):
    """Each request depends on the answer before."""
    bad, good = servers
    for _ in range(2):
        _, first = script({bad.address: FAILS})
        answered = threading.Semaphore()

        def requests(first=first, answered=answered) -> Iterator[bytes]:
            yield first
            for request in MANY:
                assert answered.acquire(timeout=20)
                yield request

        call = channel.stream_stream("/script/Talk")(requests(), timeout=20)
        got = []
        for reply in call:
            got.append(reply.split()[2])
            assert who(reply) == good.address
            answered.release()
        assert got == MANY


def test_a_call_is_never_sent_again_after_its_first_response(channel, servers):
    name, first = script({"*": {"messages": 1, **FAILS}})
    call = channel.stream_stream("/script/Talk")(iter([first, *MANY]), timeout=20)
    assert next(call)
    with pytest.raises(grpc.RpcError) as caught:
        next(call)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert call.code() is grpc.StatusCode.UNAVAILABLE
    assert began(servers, name) == 1


@pytest.mark.parametrize("call", WAYS)
def test_without_a_retry_policy_it_is_sent_once(etcd, service, servers, call):
    with opened(etcd, service, config=None) as channel:
        name, first = script({"*": FAILS})
        with pytest.raises(grpc.RpcError):
            call(channel, iter([first]))
        assert began(servers, name) == 1


@pytest.mark.parametrize("call", WAYS)
def test_the_last_failure_is_told_when_all_attempts_fail(channel, servers, call):
    name, first = script({"*": FAILS})
    with pytest.raises(grpc.RpcError) as caught:
        call(channel, iter([first, *MANY]))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "as told" in caught.value.details()
    assert began(servers, name) == 4  # maxAttempts


@pytest.mark.parametrize("call", WAYS)
@pytest.mark.parametrize(("limit", "attempts"), [(1000, 1), (10_000, 4)])
def test_it_is_sent_again_as_long_as_all_of_it_is_kept(etcd, service, servers, call, limit, attempts):
    options = (("grpc.per_rpc_retry_buffer_size", limit),)
    with opened(etcd, service, options=options) as channel:
        name, first = script({"*": {**FAILS, "after": 1}})
        with pytest.raises(grpc.RpcError):
            call(channel, iter([first, b"x" * 2000]))
        assert began(servers, name) == attempts


@pytest.mark.parametrize("call", WAYS)
def test_an_iterator_that_raises_ends_the_call(etcd, service, servers, call):
    """As on a plain channel, whatever is retried."""
    with opened(etcd, service, retry_on("UNKNOWN")) as channel:
        name, first = script({"*": {"after": 2, "code": "UNAVAILABLE"}})

        def requests() -> Iterator[bytes]:
            yield first
            wait_until(lambda: began(servers, name), "it has begun")
            raise ZeroDivisionError

        with pytest.raises(grpc.RpcError) as caught:
            call(channel, requests())
        assert caught.value.code() is grpc.StatusCode.UNKNOWN
        assert caught.value.details() == "Exception iterating requests!"
        assert began(servers, name) == 1


def test_a_request_that_cannot_be_serialized_ends_the_call(etcd, service, servers):
    def serializer(message: bytes) -> bytes:
        if message == b"bad":
            raise ZeroDivisionError
        return message

    with opened(etcd, service, retry_on("INTERNAL")) as channel:
        name, first = script({"*": {"after": 2, "code": "UNAVAILABLE"}})

        def requests() -> Iterator[bytes]:
            yield first
            wait_until(lambda: began(servers, name), "it has begun")
            yield b"bad"

        with pytest.raises(grpc.RpcError) as caught:
            channel.stream_unary("/script/Gather", serializer)(requests(), timeout=20)
        assert caught.value.code() is grpc.StatusCode.INTERNAL
        assert caught.value.details() == "Exception serializing request!"
        assert began(servers, name) == 1


def test_a_message_may_be_changed_when_the_next_one_is_asked_for(channel, servers):
    bad, good = servers
    for _ in range(2):
        _, first = script({bad.address: {**FAILS, "after": 3}})
        message = bytearray(first)

        def requests(message=message) -> Iterator[bytearray]:
            yield message
            for number in range(10):
                message[:] = b"%d" % number
                yield message

        reply = channel.stream_unary("/script/Gather", bytes)(requests(), timeout=20)
        assert parsed(reply) == (good.address, [b"%d" % number for number in range(10)])


def test_no_thread_is_left_but_the_one_that_the_application_holds(channel, servers):
    """Attempts that wait for an iterator on which another one's thread waits end with their call."""
    name, first = script({"*": FAILS})
    release = threading.Event()

    def requests() -> Iterator[bytes]:
        yield first
        assert release.wait(30)

    def readers() -> int:
        stacks = map(traceback.extract_stack, sys._current_frames().values())
        return sum(any(line.filename == sync_requests.__file__ for line in stack) for stack in stacks)

    call = channel.stream_stream("/script/Talk")(requests(), timeout=20)
    assert call.code() is grpc.StatusCode.UNAVAILABLE
    assert began(servers, name) == 4
    wait_until(lambda: readers() == 1, "only the one that waits for the iterator")
    release.set()
    wait_until(lambda: not readers(), "none")


@pytest.mark.parametrize("call", ["future", "stream"])
def test_it_can_be_cancelled_while_its_iterator_waits(channel, servers, call):
    name, first = script()
    release = threading.Event()

    def requests() -> Iterator[bytes]:
        yield first
        assert release.wait(30)

    if call == "future":
        begun = channel.stream_unary("/script/Gather").future(requests())
    else:
        begun = channel.stream_stream("/script/Talk")(requests())
    wait_until(lambda: began(servers, name), "it has begun")
    assert begun.cancel()
    assert begun.code() is grpc.StatusCode.CANCELLED
    release.set()
