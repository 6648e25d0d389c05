"""Streams of requests: iterators that raise, that are slow, that are consumed on a thread."""

from __future__ import annotations

import threading
import time

import grpc
import pytest
from tests.support.waiting import wait_until

CODE = grpc.StatusCode


def fails_after(*requests):
    yield from requests
    raise LookupError("mine")


@pytest.mark.parametrize("way", ["call", "with_call", "future", "stream_stream"])
def test_an_iterator_that_raises_ends_the_call(channel, way, caplog):
    join, both = channel.stream_unary("/contract/Join"), channel.stream_stream("/contract/EchoAll")
    with pytest.raises(grpc.RpcError) as caught:
        if way == "call":
            join(fails_after(b"x"), timeout=10)
        elif way == "with_call":
            join.with_call(fails_after(b"x"), timeout=10)
        elif way == "future":
            join.future(fails_after(b"x"), timeout=10).result()
        else:
            list(both(fails_after(b"x"), timeout=10))
    assert caught.value.code() is CODE.UNKNOWN
    assert caught.value.details() == "Exception iterating requests!"
    assert "mine" in caplog.text


def test_requests_are_made_on_a_thread_of_its_own(channel):
    threads: list[threading.Thread] = []

    def requests():
        threads.append(threading.current_thread())
        yield b"x"

    assert channel.stream_unary("/contract/Join")(requests(), timeout=10) == b"x"
    assert threads[0] is not threading.current_thread()
    assert not threads[0].name.startswith("etcd-grpc")
    assert threads[0].daemon


def test_a_slow_iterator_blocks_nobody_else(channel):
    released = threading.Event()

    def requests():
        released.wait(10)
        yield b"x"

    join = channel.stream_unary("/contract/Join").future(requests(), timeout=20)
    began = time.monotonic()
    assert channel.unary_unary("/contract/Echo")(b"y", timeout=10) == b"y"
    assert time.monotonic() - began < 9
    released.set()
    assert join.result() == b"x"


def test_no_request_at_all_is_a_call_too(channel):
    assert channel.stream_unary("/contract/Join")(iter(()), timeout=10) == b""
    assert list(channel.stream_stream("/contract/EchoAll")(iter(()), timeout=10)) == []


def test_the_iterator_is_not_touched_before_the_call_nor_after_its_end(channel):
    taken: list[int] = []

    def requests():
        for number in range(100):
            taken.append(number)
            yield b"FAILED_PRECONDITION enough" if number == 0 else b"x"
            time.sleep(0.005)

    handed = requests()
    call = channel.stream_stream("/contract/AbortEchoAll")(handed, timeout=10)
    assert next(call) == b"FAILED_PRECONDITION enough"
    assert call.code() is CODE.FAILED_PRECONDITION
    seen = len(taken)
    wait_until(lambda: not _running(handed), "the iterator rests")
    time.sleep(0.05)
    assert len(taken) <= seen + 2


def _running(generator) -> bool:
    return bool(generator.gi_running)
