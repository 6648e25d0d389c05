"""A deadline holds for the whole call, and the server is told it."""

from __future__ import annotations

import json
import time

import grpc
import pytest

CODE = grpc.StatusCode


def ways(channel, name):
    request = name.encode()
    return {
        "call": lambda t: channel.unary_unary("/contract/Hang")(request, timeout=t),
        "with_call": lambda t: channel.unary_unary("/contract/Hang").with_call(request, timeout=t),
        "future": lambda t: channel.unary_unary("/contract/Hang").future(request, timeout=t).result(),
        "unary_stream": lambda t: list(
            channel.unary_stream("/contract/HangRepeat")(request, timeout=t)
        ),
        "stream_unary": lambda t: channel.stream_unary("/contract/HangJoin")(
            iter([request]), timeout=t
        ),
        "stream_future": lambda t: (
            channel.stream_unary("/contract/HangJoin").future(iter([request]), timeout=t).result()
        ),
        "stream_stream": lambda t: list(
            channel.stream_stream("/contract/HangEchoAll")(iter([request]), timeout=t)
        ),
    }


WAYS = list(ways(None, ""))


@pytest.mark.parametrize("way", WAYS)
def test_a_call_ends_at_its_deadline(channel, name, way):
    began = time.monotonic()
    with pytest.raises(grpc.RpcError) as caught:
        ways(channel, name)[way](0.1)
    assert caught.value.code() is CODE.DEADLINE_EXCEEDED
    assert caught.value.details().count("Deadline Exceeded") == 1
    assert time.monotonic() - began >= 0.09


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("timeout", [0, -1])
def test_a_deadline_in_the_past_fails_at_once(channel, name, way, timeout):
    began = time.monotonic()
    with pytest.raises(grpc.RpcError) as caught:
        ways(channel, name)[way](timeout)
    assert caught.value.code() is CODE.DEADLINE_EXCEEDED
    assert time.monotonic() - began < 10


def test_the_server_is_told_the_deadline(channel):
    seen = json.loads(channel.unary_unary("/contract/Seen")(b"", timeout=20))
    assert 10 < seen["time_remaining"] < 21


def test_time_remaining_counts_down(channel, name):
    call = channel.unary_stream("/contract/HangRepeat")(name.encode(), timeout=20)
    first = call.time_remaining()
    assert 10 < first <= 20
    time.sleep(0.05)
    assert call.time_remaining() < first
    call.cancel()


def test_without_a_deadline_no_time_remaining_is_told(channel, name):
    call = channel.unary_stream("/contract/HangRepeat")(name.encode())
    assert call.time_remaining() is None
    call.cancel()
    call = channel.unary_unary("/contract/Hang").future(name.encode())
    assert call.time_remaining() is None
    call.cancel()


def test_after_the_deadline_no_time_remains(channel, name):
    call = channel.unary_unary("/contract/Hang").future(name.encode(), timeout=0.1)
    assert call.code() is CODE.DEADLINE_EXCEEDED
    assert call.time_remaining() == 0
