"""Who is told of a call's end: when, how often, in which order and on which thread."""

from __future__ import annotations

import threading

import grpc
import pytest
from tests.support.waiting import wait_until

STREAMS = ["future", "unary_stream", "stream_unary", "stream_stream"]


def hang(channel, way, name):
    request = name.encode()
    if way == "future":
        return channel.unary_unary("/contract/Hang").future(request, timeout=30)
    if way == "unary_stream":
        return channel.unary_stream("/contract/HangRepeat")(request, timeout=30)
    if way == "stream_unary":
        return channel.stream_unary("/contract/HangJoin").future(iter([request]), timeout=30)
    return channel.stream_stream("/contract/HangEchoAll")(iter([request]), timeout=30)


def test_callbacks_come_once_in_order_with_the_call(channel, release, name):
    told: list[object] = []
    call = channel.unary_unary("/contract/Hold").future(name.encode(), timeout=30)
    call.add_done_callback(lambda done: told.append(("first", done)))
    assert call.add_callback(lambda: told.append("second"))
    call.add_done_callback(lambda done: told.append(("third", done)))
    release(name)
    assert call.result() == b"released"
    wait_until(lambda: len(told) == 3, "all callbacks")
    assert told == [("first", call), "second", ("third", call)]


def test_a_callback_comes_on_a_thread_of_grpcs(channel, release, name):
    on: list[threading.Thread] = []
    call = channel.unary_unary("/contract/Hold").future(name.encode(), timeout=30)
    call.add_done_callback(lambda _: on.append(threading.current_thread()))
    release(name)
    call.result()
    wait_until(lambda: on, "the callback")
    assert on[0] is not threading.current_thread()
    assert on[0].name != "etcd-grpc-control"


def test_after_the_end_a_done_callback_is_called_at_once_and_a_callback_is_refused(channel):
    told: list[object] = []
    call = channel.unary_unary("/contract/Echo").future(b"x", timeout=10)
    seen = threading.Event()
    call.add_done_callback(lambda _: seen.set())
    assert seen.wait(10)
    call.add_done_callback(lambda done: told.append((done, threading.current_thread())))
    assert told == [(call, threading.current_thread())]
    assert call.add_callback(lambda: told.append("never")) is False
    assert len(told) == 1


def test_a_done_callback_added_after_the_end_may_raise(channel):
    call = channel.unary_unary("/contract/Echo").future(b"x", timeout=10)
    call.result()

    def broken(_):
        raise LookupError("mine")

    with pytest.raises(LookupError):
        call.add_done_callback(broken)


def test_a_callback_that_raises_spoils_nothing(channel, release, name, caplog):
    told = threading.Event()
    call = channel.unary_unary("/contract/Hold").future(name.encode(), timeout=30)

    def broken(_):
        raise LookupError("mine")

    call.add_done_callback(broken)
    call.add_done_callback(lambda _: told.set())
    release(name)
    assert call.result() == b"released"
    assert told.wait(10)
    assert "mine" in caplog.text
    assert channel.unary_unary("/contract/Echo")(b"x", timeout=10) == b"x"


def test_a_call_may_be_asked_everything_in_its_callback(channel, release, name):
    answers: list[object] = []

    def told(call):
        answers.extend([call.result(), call.code(), call.done(), call.exception()])

    call = channel.unary_unary("/contract/Hold").future(name.encode(), timeout=30)
    call.add_done_callback(told)
    release(name)
    wait_until(lambda: answers, "the callback")
    assert answers == [b"released", grpc.StatusCode.OK, True, None]


@pytest.mark.parametrize("way", STREAMS)
def test_a_cancelled_call_calls_back_once(channel, name, way):
    told: list[object] = []
    call = hang(channel, way, name)
    call.add_done_callback(told.append)
    assert call.add_callback(lambda: told.append("too"))
    assert call.cancel()
    wait_until(lambda: len(told) >= 2, "both callbacks")
    assert told == [call, "too"]


def test_cancelling_under_a_lock_that_the_callback_takes_does_not_hang(channel, name):
    lock, told = threading.Lock(), threading.Event()

    def callback(_):
        with lock:
            told.set()

    call = hang(channel, "future", name)
    call.add_done_callback(callback)
    with lock:
        assert call.cancel()
        assert call.done()
    assert told.wait(10)


def test_a_callback_may_make_the_next_call(channel):
    answers: list[bytes] = []
    echo = channel.unary_unary("/contract/Echo")

    def again(_):
        echo.future(b"y", timeout=10).add_done_callback(lambda done: answers.append(done.result()))

    echo.future(b"x", timeout=10).add_done_callback(again)
    wait_until(lambda: answers == [b"y"], "the second answer")
