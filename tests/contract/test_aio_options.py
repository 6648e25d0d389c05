"""Channel options reach the connections of asyncio channels."""

from __future__ import annotations

import json

import grpc
import pytest

CODE = grpc.StatusCode


async def test_the_largest_messages(world):
    limits = [("grpc.max_receive_message_length", 1000), ("grpc.max_send_message_length", 5000)]
    async with world.aio_channel(options=limits) as channel:
        echo = channel.unary_unary("/contract/Echo")
        assert await echo(b"x" * 900, timeout=10) == b"x" * 900
        for size in (2000, 6000):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await echo(b"x" * size, timeout=10)
            assert caught.value.code() is CODE.RESOURCE_EXHAUSTED


async def test_the_user_agent(world):
    async with world.aio_channel(options=[("grpc.primary_user_agent", "mine/1.0")]) as channel:
        seen = json.loads(await channel.unary_unary("/contract/Seen")(b"", timeout=10))
        (agent,) = [value for name, value in seen["metadata"] if name == "user-agent"]
        assert agent.startswith("mine/1.0 grpc-python-asyncio/")


async def test_arguments_by_position(world):
    options = [("grpc.primary_user_agent", "mine/1.0")]
    async with world.aio_channel(options, grpc.Compression.Gzip, []) as channel:
        assert await channel.unary_unary("/contract/Echo")(b"x", timeout=10) == b"x"
