"""Channel options reach the connections."""

from __future__ import annotations

import json

import grpc
import pytest
from grpc.experimental import ChannelOptions

CODE = grpc.StatusCode


def test_the_largest_message_that_is_received(world):
    with world.channel(options=[("grpc.max_receive_message_length", 1000)]) as channel:
        echo = channel.unary_unary("/contract/Echo")
        assert echo(b"x" * 900, timeout=10) == b"x" * 900
        with pytest.raises(grpc.RpcError) as caught:
            echo(b"x" * 2000, timeout=10)
        assert caught.value.code() is CODE.RESOURCE_EXHAUSTED


def test_the_largest_message_that_is_sent(world):
    with world.channel(options=(("grpc.max_send_message_length", 1000),)) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/contract/Echo")(b"x" * 2000, timeout=10)
        assert caught.value.code() is CODE.RESOURCE_EXHAUSTED


def test_the_user_agent(world):
    with world.channel(options=[("grpc.primary_user_agent", "mine/1.0")]) as channel:
        seen = json.loads(channel.unary_unary("/contract/Seen")(b"", timeout=10))
        (agent,) = [value for name, value in seen["metadata"] if name == "user-agent"]
        assert agent.startswith("mine/1.0 grpc-python/")


def test_streams_without_a_thread(world):
    with world.channel(options=[(ChannelOptions.SingleThreadedUnaryStream, 1)]) as channel:
        for _ in range(3):
            call = channel.unary_stream("/contract/Repeat")(b"x", timeout=10)
            assert list(call) == [b"x0", b"x1", b"x2"]
            assert call.code() is CODE.OK
        call = channel.unary_stream("/contract/AbortRepeat")(b"ABORTED mine", timeout=10)
        assert next(call) == b"ABORTED mine"
        with pytest.raises(grpc.RpcError) as caught:
            next(call)
        assert caught.value.code() is CODE.ABORTED


def test_arguments_by_position(world):
    with world.channel([("grpc.primary_user_agent", "mine/1.0")], grpc.Compression.Gzip) as channel:
        assert channel.unary_unary("/contract/Echo")(b"x", 10) == b"x"
