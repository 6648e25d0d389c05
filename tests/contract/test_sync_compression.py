"""Compression, of a channel and of a call, arrives: fewer bytes are sent."""

from __future__ import annotations

import grpc
import pytest
from tests.support.contract import CHANNELS
from tests.support.tap import Tap

ZEROS = bytes(200_000)
SMALL, LARGE = 50_000, 190_000
WAYS = ["call", "with_call", "future", "unary_stream", "stream_unary", "stream_future", "stream_stream"]


def send(channel, way, **how):
    how["timeout"] = 10
    if way == "call":
        channel.unary_unary("/contract/Echo")(ZEROS, **how)
    elif way == "with_call":
        channel.unary_unary("/contract/Echo").with_call(ZEROS, **how)
    elif way == "future":
        channel.unary_unary("/contract/Echo").future(ZEROS, **how).result()
    elif way == "unary_stream":
        list(channel.unary_stream("/contract/Repeat")(ZEROS, **how))
    elif way == "stream_unary":
        channel.stream_unary("/contract/Join")(iter([ZEROS]), **how)
    elif way == "stream_future":
        channel.stream_unary("/contract/Join").future(iter([ZEROS]), **how).result()
    else:
        list(channel.stream_stream("/contract/EchoAll")(iter([ZEROS]), **how))


@pytest.fixture(params=CHANNELS)
def tapped(request, place, servers):
    """A world behind a tap, and the tap."""
    with Tap(servers[0].address) as tap:
        yield place(request.param, [tap.address]), tap


def test_compression_of_a_channel_is_used_in_every_shape(tapped):
    world, tap = tapped
    with world.channel(compression=grpc.Compression.Gzip) as channel:
        for way in WAYS:
            before = tap.sent
            send(channel, way)
            assert tap.sent - before < SMALL, way
    with world.channel() as channel:
        before = tap.sent
        send(channel, "call")
        assert tap.sent - before > LARGE


def test_compression_of_a_call_is_used_in_every_shape(tapped):
    world, tap = tapped
    with world.channel() as channel:
        for way in WAYS:
            if way == "stream_future":
                continue  # there, a plain channel forgets it
            before = tap.sent
            send(channel, way, compression=grpc.Compression.Gzip)
            assert tap.sent - before < SMALL, way
