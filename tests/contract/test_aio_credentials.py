"""Credentials of asyncio channels and calls, over TLS."""

from __future__ import annotations

import asyncio
import json
import threading

import grpc
import pytest


@pytest.fixture
def tls(authority):
    return grpc.ssl_channel_credentials((authority / "ca.pem").read_bytes())


def token(text="call-token"):
    def give(context, callback):
        callback((("authorization", text),), None)

    return grpc.metadata_call_credentials(give)


def authorization(reply):
    return [value for name, value in json.loads(reply)["metadata"] if name == "authorization"]


class Pass(grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation, client_call_details, request):
        assert client_call_details.credentials is not None
        return await continuation(client_call_details, request)


@pytest.mark.parametrize("interceptors", [None, [Pass()]], ids=["bare", "intercepted"])
async def test_credentials_of_a_call_arrive(tls_world, tls, interceptors):
    how = {"timeout": 10, "credentials": token()}
    async with tls_world.aio_secure_channel(tls, interceptors=interceptors) as channel:
        seen = channel.unary_unary("/contract/Seen")
        assert authorization(await seen(b"", **how)) == ["call-token"]
        assert authorization(await seen(b"", **how)) == ["call-token"]
        reply = await channel.unary_stream("/contract/SeenStream")(b"", **how).read()
        assert authorization(reply) == ["call-token"]


async def test_credentials_of_a_channel_and_of_a_call_are_put_together(tls_world, tls):
    both = grpc.composite_channel_credentials(tls, token("channel-token"))
    async with tls_world.aio_secure_channel(both) as channel:
        seen = channel.unary_unary("/contract/Seen")
        assert authorization(await seen(b"", timeout=10)) == ["channel-token"]
        reply = await seen(b"", timeout=10, credentials=token())
        assert sorted(authorization(reply)) == ["call-token", "channel-token"]


async def test_credentials_of_a_call_are_not_sent_in_plaintext(world):
    async with world.aio_channel() as channel:
        with pytest.raises(grpc.aio.UsageError, match="only valid on secure channels"):
            await channel.unary_unary("/contract/Echo")(b"x", timeout=10, credentials=token())


def test_many_channels_on_many_loops_share_one_credentials_object(tls_world, tls):
    both = grpc.composite_channel_credentials(tls, token("shared"))
    together, seen = threading.Barrier(6), []

    async def use():
        together.wait(20)
        async with tls_world.aio_secure_channel(both) as channel:
            reply = await channel.unary_unary("/contract/Seen")(b"", timeout=30)
            seen.extend(authorization(reply))

    threads = [threading.Thread(target=asyncio.run, args=(use(),)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert seen == ["shared"] * 6
