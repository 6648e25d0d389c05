"""Waiting for a server that is not there yet, and failing at once where nobody waits."""

from __future__ import annotations

import time

import grpc
import pytest
from tests.support.calls import free_port
from tests.support.contract import CHANNELS, ContractServer

CODE = grpc.StatusCode
# A plain channel that was refused tries again after a second; it may come sooner.
OPTIONS = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 100)]


@pytest.fixture(params=CHANNELS)
def nowhere(request, place):
    """A world where nobody listens, and its first port."""
    ports = [free_port() for _ in range(3 if request.param == "three" else 1)]
    return place(request.param, [f"127.0.0.1:{port}" for port in ports]), ports[0]


def test_a_call_that_does_not_wait_fails_once_nobody_can_be_reached(nowhere):
    world, port = nowhere
    with world.channel() as channel:
        echo = channel.unary_unary("/contract/Echo")
        for call in (echo, echo.with_call, lambda *a, **kw: echo.future(*a, **kw).result()):
            with pytest.raises(grpc.RpcError) as caught:
                call(b"x", timeout=10)
            assert caught.value.code() is CODE.UNAVAILABLE
            assert str(port) in caught.value.details()
            assert list(caught.value.trailing_metadata()) == []
            assert f"\tstatus = {CODE.UNAVAILABLE}\n" in str(caught.value)
            assert str(port) in caught.value.debug_error_string()
        with pytest.raises(grpc.RpcError) as caught:
            next(channel.unary_stream("/contract/Repeat")(b"x", timeout=10))
        assert caught.value.code() is CODE.UNAVAILABLE
        with pytest.raises(grpc.RpcError) as caught:
            channel.stream_unary("/contract/Join")(iter([b"x"]), timeout=10)
        assert caught.value.code() is CODE.UNAVAILABLE
        with pytest.raises(grpc.RpcError) as caught:
            next(channel.stream_stream("/contract/EchoAll")(iter([b"x"]), timeout=10))
        assert caught.value.code() is CODE.UNAVAILABLE


def test_a_call_that_waits_ends_at_its_deadline(nowhere):
    world, _ = nowhere
    with world.channel() as channel:
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/contract/Echo")(b"x", timeout=0.3, wait_for_ready=True)
        assert caught.value.code() is CODE.DEADLINE_EXCEEDED
        assert "Deadline Exceeded" in caught.value.details()


def test_calls_that_wait_are_made_once_the_server_is_there(nowhere):
    world, port = nowhere
    with world.channel(options=OPTIONS) as channel:
        ready = {"timeout": 30, "wait_for_ready": True}
        began = time.monotonic()
        future = channel.unary_unary("/contract/Echo").future(b"x", **ready)
        stream = channel.unary_stream("/contract/Repeat")(b"x", **ready)
        join = channel.stream_unary("/contract/Join").future(iter([b"x", b"y"]), **ready)
        both = channel.stream_stream("/contract/EchoAll")(iter([b"x"]), **ready)
        assert time.monotonic() - began < 20  # none of them blocks
        assert not any(call.done() for call in (future, stream, join, both))
        assert all(call.is_active() for call in (future, stream, join, both))
        with ContractServer("--port", str(port)) as server:
            server.ready()
            assert future.result() == b"x"
            assert list(stream) == [b"x0", b"x1", b"x2"]
            assert join.result() == b"x,y"
            assert list(both) == [b"x"]
            assert channel.unary_unary("/contract/Echo")(b"x", **ready) == b"x"


@pytest.mark.parametrize("shape", ["future", "unary_stream", "stream_unary", "stream_stream"])
def test_a_call_that_waits_can_be_cancelled(nowhere, shape):
    world, _ = nowhere
    told: list[object] = []
    with world.channel() as channel:
        ready = {"timeout": 30, "wait_for_ready": True}
        call = {
            "future": lambda: channel.unary_unary("/contract/Echo").future(b"x", **ready),
            "unary_stream": lambda: channel.unary_stream("/contract/Repeat")(b"x", **ready),
            "stream_unary": lambda: channel.stream_unary("/contract/Join").future(iter([]), **ready),
            "stream_stream": lambda: channel.stream_stream("/contract/EchoAll")(iter([]), **ready),
        }[shape]()
        call.add_done_callback(told.append)
        assert call.cancel()
        assert call.cancelled()
        assert call.code() is CODE.CANCELLED
        assert call.details() == "Locally cancelled by application!"
        assert list(call.initial_metadata()) == []
        assert list(call.trailing_metadata()) == []
        with pytest.raises(grpc.FutureCancelledError):
            call.result()
        with pytest.raises(grpc.FutureCancelledError):
            call.exception()
        with pytest.raises(grpc.FutureCancelledError):
            call.traceback()
        assert call.cancel() is False
        if shape.endswith("_stream"):
            with pytest.raises(grpc.RpcError) as caught:
                next(call)
            assert caught.value.code() is CODE.CANCELLED


def test_a_future_never_blocks_where_it_is_made(nowhere):
    world, _ = nowhere
    with world.channel() as channel:
        began = time.monotonic()
        call = channel.unary_unary("/contract/Echo").future(b"x", timeout=60, wait_for_ready=True)
        assert time.monotonic() - began < 20
        assert 0 < call.time_remaining() <= 60
        assert str(call).endswith(" object>")
        with pytest.raises(grpc.FutureTimeoutError):
            call.result(timeout=0.01)
        call.cancel()
