"""What a call can be asked once it has ended, on every path to its end."""

from __future__ import annotations

import copy
import pickle

import grpc
import pytest
from tests.support.contract import state
from tests.support.contract_server import INITIAL, TRAILING

CODE = grpc.StatusCode
ABORTED = (CODE.FAILED_PRECONDITION, "not now", list(INITIAL), list(TRAILING))
GONE = (CODE.CANCELLED, "Locally cancelled by application!", [], [])
REQUEST = b"FAILED_PRECONDITION not now"


def blocking(channel):
    """Whatever raises an error for a caller who blocks, by name."""
    return {
        "call": lambda m, **kw: channel.unary_unary(m)(REQUEST, **kw),
        "with_call": lambda m, **kw: channel.unary_unary(m).with_call(REQUEST, **kw),
        "future": lambda m, **kw: channel.unary_unary(m).future(REQUEST, **kw).result(),
    }


@pytest.mark.parametrize("way", ["call", "with_call", "future"])
def test_an_error_of_the_server_arrives_with_all_that_was_sent(channel, way):
    with pytest.raises(grpc.RpcError) as caught:
        blocking(channel)[way]("/contract/Abort", timeout=10)
    error = caught.value
    assert state(error) == ABORTED
    assert isinstance(error, grpc.Call)
    assert isinstance(error, grpc.Future)
    assert "not now" in error.debug_error_string()
    assert (error.done(), error.running(), error.cancelled()) == (True, False, False)
    assert error.cancel() is False
    assert error.exception() is error
    assert error.traceback() is not None
    with pytest.raises(grpc.RpcError) as again:
        error.result()
    assert again.value is error


@pytest.mark.parametrize("way", ["call", "with_call", "future"])
def test_an_error_says_in_its_text_what_happened(channel, way):
    with pytest.raises(grpc.RpcError) as caught:
        blocking(channel)[way]("/contract/Abort", timeout=10)
    text = str(caught.value)
    assert text == repr(caught.value)
    assert " of RPC that terminated with:" in text
    assert "\tstatus = StatusCode.FAILED_PRECONDITION\n" in text
    assert '\tdetails = "not now"\n' in text
    assert '\tdebug_error_string = "' in text


def test_the_text_of_a_call_says_whether_it_has_ended(channel, name):
    call = channel.unary_unary("/contract/Echo").future(b"x", timeout=10)
    call.result()
    assert str(call) == repr(call)
    assert " of RPC that terminated with:\n\tstatus = StatusCode.OK\n" in str(call)
    call = channel.unary_unary("/contract/Hang").future(name.encode(), timeout=30)
    assert str(call).endswith(" object>")
    assert "\n" not in str(call)
    call.cancel()
    assert "status = StatusCode.CANCELLED" in str(call)


def test_a_failed_future_is_asked_as_its_error_is(channel):
    call = channel.unary_unary("/contract/Abort").future(REQUEST, timeout=10)
    error = call.exception()
    assert isinstance(error, grpc.RpcError)
    assert state(call) == state(error) == ABORTED
    assert "not now" in call.debug_error_string()
    assert (call.done(), call.running(), call.cancelled()) == (True, False, False)
    assert not call.is_active()
    assert call.traceback() is not None


@pytest.mark.parametrize("shape", ["unary_stream", "stream_stream"])
def test_a_stream_that_fails_gives_what_came_and_raises(channel, shape):
    if shape == "unary_stream":
        call = channel.unary_stream("/contract/AbortRepeat")(REQUEST, timeout=10)
    else:
        call = channel.stream_stream("/contract/AbortEchoAll")(iter([REQUEST]), timeout=10)
    assert next(call) == REQUEST
    with pytest.raises(grpc.RpcError) as caught:
        next(call)
    assert state(caught.value) == state(call) == ABORTED
    with pytest.raises(grpc.RpcError):
        next(call)
    assert call.exception() is not None


@pytest.mark.parametrize("way", ["call", "with_call", "future"])
def test_stream_unary_fails_as_unary_does(channel, way):
    join = channel.stream_unary("/contract/AbortJoin")
    requests = iter([b"a", REQUEST])
    with pytest.raises(grpc.RpcError) as caught:
        if way == "call":
            join(requests, timeout=10)
        elif way == "with_call":
            join.with_call(requests, timeout=10)
        else:
            join.future(requests, timeout=10).result()
    assert state(caught.value) == ABORTED


def test_a_deadline_of_ones_own_is_told(channel, name):
    call = channel.unary_unary("/contract/Hang").future(name.encode(), timeout=0.1)
    assert call.code() is CODE.DEADLINE_EXCEEDED
    assert call.details().count("Deadline Exceeded") == 1
    assert call.trailing_metadata() == ()
    assert "Deadline Exceeded" in call.debug_error_string()
    assert not call.cancelled()


def test_a_cancelled_future_is_told_at_once(channel, name):
    call = channel.unary_unary("/contract/Hang").future(name.encode(), timeout=30)
    assert call.cancel()
    code, details, initial, trailing = state(call)
    assert (code, details, trailing) == (*GONE[:2], GONE[3])
    assert initial in (GONE[2], list(INITIAL))  # the server may have sent it by then
    assert call.cancelled()
    assert call.done()
    assert not call.running()
    for ask in (call.result, call.exception, call.traceback):
        with pytest.raises(grpc.FutureCancelledError):
            ask()
    assert call.cancel() is False


def test_a_cancelled_stream_is_told_at_once(channel, name):
    call = channel.unary_stream("/contract/HangRepeat")(name.encode(), timeout=30)
    assert call.cancel()
    assert call.code() is CODE.CANCELLED
    assert call.details() == GONE[1]
    assert call.trailing_metadata() == ()
    with pytest.raises(grpc.RpcError) as caught:
        list(call)
    assert caught.value.code() is CODE.CANCELLED


def test_a_result_is_awaited_no_longer_than_asked(channel, name):
    call = channel.unary_unary("/contract/Hang").future(name.encode(), timeout=30)
    for ask in (call.result, call.exception, call.traceback):
        with pytest.raises(grpc.FutureTimeoutError):
            ask(timeout=0.01)
    call.cancel()


def test_an_error_hides_no_other_error_of_an_attempt(channel):
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/contract/Abort")(REQUEST, timeout=10)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_an_error_is_not_pickled(channel, request):
    """The error of a plain channel cannot be; nobody relies on it."""
    if request.getfixturevalue("_called").kind.startswith("hedged"):
        pytest.skip("a hedged call fails with the error of a future, which cannot be copied either")
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/contract/Abort")(REQUEST, timeout=10)
    with pytest.raises(TypeError):
        pickle.dumps(caught.value)
    with pytest.raises(TypeError):
        copy.deepcopy(caught.value)
