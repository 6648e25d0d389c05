"""The end of a channel: with calls under way, twice, by a with block; and what comes after it."""

from __future__ import annotations

import contextlib
import gc
import threading

import grpc
import pytest
from tests.support.waiting import wait_until

CODE = grpc.StatusCode
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


@pytest.mark.parametrize("way", STREAMS)
def test_calls_under_way_are_cancelled(world, name, way):
    told: list[object] = []
    channel = world.channel()
    call = hang(channel, way, name)
    call.add_done_callback(told.append)
    wait_until(lambda: world.events(name), "it began")
    channel.close()
    assert call.code() is CODE.CANCELLED
    assert "Channel closed!" in call.details()
    assert call.done()
    assert not call.cancelled()  # by the application, that is
    wait_until(lambda: told == [call], "the callback")
    wait_until(lambda: world.events(name) == ["began", "ended"], "it ended")


def test_a_blocked_caller_is_released(world, name):
    codes: list[object] = []
    channel = world.channel()

    def wait():
        try:
            channel.unary_unary("/contract/Hang")(name.encode(), timeout=30)
        except grpc.RpcError as error:
            codes.append((error.code(), "Channel closed!" in error.details()))

    thread = threading.Thread(target=wait)
    thread.start()
    wait_until(lambda: world.events(name), "it began")
    channel.close()
    thread.join(10)
    assert codes == [(CODE.CANCELLED, True)]


@pytest.mark.parametrize("used", [False, True])
def test_a_closed_channel_refuses_calls(world, used):
    channel = world.channel()
    echo = channel.unary_unary("/contract/Echo")
    if used:
        assert echo(b"x", timeout=10) == b"x"
    channel.close()
    repeat = channel.unary_stream("/contract/Repeat")
    join = channel.stream_unary("/contract/Join")
    both = channel.stream_stream("/contract/EchoAll")
    calls = [
        lambda: echo(b"x"),
        lambda: echo.with_call(b"x"),
        lambda: echo.future(b"x"),
        lambda: repeat(b"x"),
        lambda: join(iter([])),
        lambda: join.with_call(iter([])),
        lambda: join.future(iter([])),
        lambda: both(iter([])),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="Cannot invoke RPC"):
            call()


def test_closing_twice_is_no_matter(world):
    channel = world.channel()
    assert channel.unary_unary("/contract/Echo")(b"x", timeout=10) == b"x"
    channel.close()
    channel.close()
    with channel:
        pass


def test_a_with_block_closes_and_swallows_nothing(world):
    channel = world.channel()
    with pytest.raises(LookupError, match="mine"):
        with channel as entered:
            assert entered is channel
            raise LookupError("mine")
    with pytest.raises(ValueError, match="Cannot invoke RPC"):
        channel.unary_unary("/contract/Echo")(b"x")
    assert not channel.__exit__(None, None, None)


@contextlib.contextmanager
def dropped(world):
    """A balanced channel that nobody closed is told of, on whatever thread; a plain one is not."""
    if not world.balanced:
        yield
        return
    with pytest.warns(ResourceWarning, match="was not closed") as told:
        yield
        gc.collect()
        wait_until(lambda: len(told), "the warning")


def test_a_stub_keeps_its_channel_alive(world):
    with dropped(world):
        echo = world.channel().unary_unary("/contract/Echo")
        gc.collect()
        assert echo(b"x", timeout=10) == b"x"
        assert echo(b"x", timeout=10) == b"x"
        del echo


@pytest.mark.parametrize("way", STREAMS)
@pytest.mark.parametrize("warm", [False, True])
def test_a_call_keeps_its_channel_alive(world, name, way, warm):
    with dropped(world):
        channel = world.channel()
        if warm:
            assert channel.unary_unary("/contract/Echo")(b"x", timeout=10) == b"x"
        call = hang(channel, way, name)
        del channel
        gc.collect()
        wait_until(lambda: world.events(name), "it began")
        gc.collect()
        assert not call.done()
        call.cancel()
        assert call.code() is CODE.CANCELLED
        wait_until(lambda: world.events(name) == ["began", "ended"], "it ended")
        del call
