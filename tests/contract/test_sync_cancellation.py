"""A call can be cancelled at any time, from any thread, and the server hears of it."""

from __future__ import annotations

import queue
import threading

import grpc
import pytest
from tests.support.waiting import wait_until

CODE = grpc.StatusCode


def test_a_cancelled_future_ends_at_the_server(channel, events, name):
    call = channel.unary_unary("/contract/Hang").future(name.encode(), timeout=30)
    wait_until(lambda: events(name), "it began")
    assert call.cancel()
    wait_until(lambda: events(name) == ["began", "ended"], "it ended")


def test_a_future_cancelled_at_once_is_cancelled(channel, name):
    for _ in range(20):
        call = channel.unary_unary("/contract/Hang").future(name.encode(), timeout=30)
        assert call.cancel()
        assert call.cancelled()
        assert call.code() is CODE.CANCELLED
        with pytest.raises(grpc.FutureCancelledError):
            call.result(timeout=10)


def test_another_thread_may_cancel_while_one_waits_for_the_result(channel, events, name):
    call = channel.unary_unary("/contract/Hang").future(name.encode(), timeout=30)
    raised: queue.SimpleQueue[object] = queue.SimpleQueue()

    def wait():
        try:
            raised.put(call.result())
        except grpc.FutureCancelledError as error:
            raised.put(type(error))

    thread = threading.Thread(target=wait)
    thread.start()
    wait_until(lambda: events(name), "it began")
    assert call.cancel()
    assert raised.get(timeout=10) is grpc.FutureCancelledError
    thread.join(10)


@pytest.mark.parametrize("shape", ["unary_stream", "stream_stream"])
def test_another_thread_may_cancel_while_one_waits_for_a_response(channel, events, name, shape):
    if shape == "unary_stream":
        call = channel.unary_stream("/contract/HangRepeat")(name.encode(), timeout=30)
    else:
        call = channel.stream_stream("/contract/HangEchoAll")(iter([name.encode()]), timeout=30)
    assert next(call) == name.encode()
    wait_until(lambda: events(name), "it hangs")
    threading.Timer(0.05, call.cancel).start()
    with pytest.raises(grpc.RpcError) as caught:
        next(call)
    assert caught.value.code() is CODE.CANCELLED
    assert caught.value.details() == "Locally cancelled by application!"
    wait_until(lambda: events(name) == ["began", "ended"], "it ended")


def test_a_stream_of_requests_is_no_longer_consumed_after_a_cancel(channel, name):
    taken: list[int] = []
    goes_on = threading.Event()

    def requests():
        yield name.encode()
        goes_on.wait(10)
        for number in range(1000):
            taken.append(number)
            yield b"x"

    call = channel.stream_unary("/contract/HangJoin").future(requests(), timeout=30)
    assert call.cancel()
    goes_on.set()
    assert call.code() is CODE.CANCELLED
    assert len(taken) <= 1


def test_cancelling_twice_says_so(channel, name):
    call = channel.unary_stream("/contract/HangRepeat")(name.encode(), timeout=30)
    assert call.cancel() is True
    assert call.cancel() is False


def test_a_stream_that_is_dropped_ends_at_the_server(channel, events, name):
    call = channel.unary_stream("/contract/HangRepeat")(name.encode(), timeout=30)
    assert next(call) == name.encode()
    wait_until(lambda: events(name), "it hangs")
    del call
    wait_until(lambda: events(name) == ["began", "ended"], "it ended")
