"""A call for which there was no endpoint fails like any other call."""

from __future__ import annotations

import traceback

import grpc
import pytest

from etcd_grpc.channel.failure import NoEndpointError


@pytest.fixture
def error() -> NoEndpointError:
    return NoEndpointError(grpc.StatusCode.UNAVAILABLE, "cannot find service greeter")


def test_it_is_caught_as_an_rpc_error(error: NoEndpointError) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        raise error
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert caught.value.details() == "cannot find service greeter"


def test_it_is_shown_with_code_and_details(error: NoEndpointError) -> None:
    for shown in (str(error), repr(error), error.debug_error_string()):
        assert "UNAVAILABLE" in shown
        assert "cannot find service greeter" in shown


def test_it_is_a_call_that_has_ended(error: NoEndpointError) -> None:
    call: grpc.Call = error
    assert not call.is_active()
    assert call.time_remaining() is None
    assert error.initial_metadata() == ()
    assert error.trailing_metadata() == ()
    assert not error.cancel()
    assert not error.add_callback(lambda: None)  # grpc.Call: False means it will not be called


def test_it_is_a_future_that_is_done(error: NoEndpointError) -> None:
    assert isinstance(error, grpc.Future)
    assert error.done()
    assert not error.running()
    assert not error.cancelled()
    assert error.exception(timeout=0) is error
    with pytest.raises(grpc.RpcError) as caught:
        error.result(timeout=0)
    assert caught.value is error


def test_done_callback_is_called_at_once_with_it(error: NoEndpointError) -> None:
    heard: list[object] = []
    error.add_done_callback(heard.append)
    assert heard == [error]


def test_it_has_a_traceback(error: NoEndpointError) -> None:
    assert traceback.format_tb(error.traceback())
