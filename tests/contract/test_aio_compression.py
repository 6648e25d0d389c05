"""Compression of asyncio channels and calls arrives: fewer bytes are sent."""

from __future__ import annotations

import grpc
import pytest
from tests.support.contract import CHANNELS
from tests.support.tap import Tap

ZEROS = bytes(200_000)
SMALL, LARGE = 50_000, 190_000
SHAPES = ["unary_unary", "unary_stream", "stream_unary", "stream_stream"]


async def send(channel, shape, **how):
    how["timeout"] = 10
    if shape == "unary_unary":
        await channel.unary_unary("/contract/Echo")(ZEROS, **how)
    elif shape == "unary_stream":
        async for _ in channel.unary_stream("/contract/Repeat")(ZEROS, **how):
            pass
    elif shape == "stream_unary":
        await channel.stream_unary("/contract/Join")(iter([ZEROS]), **how)
    else:
        async for _ in channel.stream_stream("/contract/EchoAll")(iter([ZEROS]), **how):
            pass


class Pass(grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation, client_call_details, request):
        return await continuation(client_call_details, request)


@pytest.fixture(params=CHANNELS)
def tapped(request, place, servers):
    """A world behind a tap, and the tap."""
    with Tap(servers[0].address) as tap:
        yield place(request.param, [tap.address]), tap


async def test_compression_of_a_channel_is_used_in_every_shape(tapped):
    world, tap = tapped
    async with world.aio_channel(compression=grpc.Compression.Gzip) as channel:
        for shape in SHAPES:
            before = tap.sent
            await send(channel, shape)
            assert tap.sent - before < SMALL, shape
    async with world.aio_channel() as channel:
        before = tap.sent
        await send(channel, "unary_unary")
        assert tap.sent - before > LARGE


@pytest.mark.parametrize("interceptors", [None, [Pass()]], ids=["bare", "intercepted"])
async def test_compression_of_a_call_is_used_in_every_shape(tapped, interceptors):
    world, tap = tapped
    async with world.aio_channel(interceptors=interceptors) as channel:
        for shape in SHAPES:
            before = tap.sent
            await send(channel, shape, compression=grpc.Compression.Gzip)
            assert tap.sent - before < SMALL, shape
