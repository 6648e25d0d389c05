"""The four shapes, each in every way in which it can be called."""

from __future__ import annotations

import queue

import grpc
import pytest
from tests.support.contract import state
from tests.support.contract_server import INITIAL, TRAILING

OK = grpc.StatusCode.OK
DONE = (OK, "", list(INITIAL), list(TRAILING))


def test_unary_unary_answers(channel):
    assert channel.unary_unary("/contract/Echo")(b"x", timeout=10) == b"x"


def test_unary_unary_with_call_gives_the_call(channel):
    reply, call = channel.unary_unary("/contract/Echo").with_call(b"x", timeout=10)
    assert reply == b"x"
    assert state(call) == DONE
    assert isinstance(call, grpc.Call)
    assert not call.is_active()
    assert call.time_remaining() is None


def test_a_unary_future_is_a_call_a_future_and_an_error(channel):
    call = channel.unary_unary("/contract/Echo").future(b"x", timeout=10)
    assert isinstance(call, grpc.Call)
    assert isinstance(call, grpc.Future)
    assert isinstance(call, grpc.RpcError)
    assert call.result(timeout=10) == b"x"
    assert call.exception() is None
    assert call.traceback() is None
    assert (call.done(), call.running(), call.cancelled()) == (True, False, False)
    assert not call.is_active()
    assert state(call) == DONE
    assert 0 < call.time_remaining() <= 10
    assert call.cancel() is False


def test_unary_stream_is_iterated(channel):
    call = channel.unary_stream("/contract/Repeat")(b"x", timeout=10)
    assert isinstance(call, grpc.Call)
    assert isinstance(call, grpc.Future)
    assert isinstance(call, grpc.RpcError)
    assert iter(call) is call
    assert next(call) == b"x0"
    assert list(call) == [b"x1", b"x2"]
    assert state(call) == DONE
    with pytest.raises(StopIteration):
        next(call)


def test_stream_unary_answers(channel):
    assert channel.stream_unary("/contract/Join")(iter([b"a", b"b"]), timeout=10) == b"a,b"


def test_stream_unary_with_call_gives_the_call(channel):
    reply, call = channel.stream_unary("/contract/Join").with_call(iter([b"a", b"b"]), timeout=10)
    assert reply == b"a,b"
    assert state(call) == DONE


def test_a_stream_unary_future_answers(channel):
    call = channel.stream_unary("/contract/Join").future(iter([b"a", b"b"]), timeout=10)
    assert isinstance(call, grpc.Call)
    assert isinstance(call, grpc.Future)
    assert call.result(timeout=10) == b"a,b"
    assert state(call) == DONE


def test_stream_stream_answers_while_requests_are_still_being_made(channel):
    requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    call = channel.stream_stream("/contract/EchoAll")(iter(requests.get, None), timeout=10)
    assert isinstance(call, grpc.Call)
    assert isinstance(call, grpc.Future)
    assert isinstance(call, grpc.RpcError)
    for number in range(4):
        requests.put(str(number).encode())
        assert next(call) == str(number).encode()
    requests.put(None)
    assert list(call) == []
    assert state(call) == DONE


def test_many_futures_at_once_all_answer(channel):
    echo = channel.unary_unary("/contract/Echo")
    calls = {str(n).encode(): echo.future(str(n).encode(), timeout=10) for n in range(50)}
    assert all(call.result(timeout=10) == request for request, call in calls.items())


def test_initial_metadata_of_a_stream_is_there_before_its_end(channel, name):
    call = channel.unary_stream("/contract/HangRepeat")(name.encode(), timeout=30)
    assert list(call.initial_metadata()) == list(INITIAL)
    assert not call.done()
    assert call.cancel()


@pytest.mark.parametrize("shape", ["unary_unary", "unary_stream", "stream_unary", "stream_stream"])
def test_an_unknown_method_is_unimplemented(channel, shape):
    unary = shape.startswith("unary")
    call = getattr(channel, shape)("/contract/None")
    with pytest.raises(grpc.RpcError) as caught:
        done = call(b"x" if unary else iter([b"x"]), timeout=10)
        next(done)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
