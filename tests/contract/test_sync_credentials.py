"""Credentials of a channel and of a call, over TLS; many channels that share one object."""

from __future__ import annotations

import json
import threading

import grpc
import pytest

CODE = grpc.StatusCode


class Token(grpc.AuthMetadataPlugin):
    """Like a cloud's credentials: asked for every call, on a thread of gRPC's."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.asked = 0

    def __call__(self, context, callback):
        self.asked += 1
        assert context.method_name
        callback((("authorization", self.text),), None)


@pytest.fixture
def tls(authority):
    return grpc.ssl_channel_credentials((authority / "ca.pem").read_bytes())


def token(text="call-token"):
    return grpc.metadata_call_credentials(Token(text))


def authorization(reply):
    return [value for name, value in json.loads(reply)["metadata"] if name == "authorization"]


def test_credentials_of_a_call_arrive_in_every_shape(tls_world, tls):
    how = {"timeout": 10, "credentials": token()}
    with tls_world.secure_channel(tls) as channel:
        seen = channel.unary_unary("/contract/Seen")
        assert authorization(seen(b"", timeout=10)) == []
        assert authorization(seen(b"", **how)) == ["call-token"]
        assert authorization(seen.with_call(b"", **how)[0]) == ["call-token"]
        assert authorization(seen.future(b"", **how).result()) == ["call-token"]
        (reply,) = channel.unary_stream("/contract/SeenStream")(b"", **how)
        assert authorization(reply) == ["call-token"]


def test_credentials_of_the_first_call_arrive(tls_world, tls):
    with tls_world.secure_channel(tls) as channel:
        call = channel.unary_unary("/contract/Seen").future(b"", timeout=10, credentials=token())
        assert authorization(call.result()) == ["call-token"]


def test_credentials_of_a_channel_and_of_a_call_are_put_together(tls_world, tls):
    both = grpc.composite_channel_credentials(tls, token("channel-token"))
    with tls_world.secure_channel(both) as channel:
        seen = channel.unary_unary("/contract/Seen")
        assert authorization(seen(b"", timeout=10)) == ["channel-token"]
        reply = seen(b"", timeout=10, credentials=token())
        assert sorted(authorization(reply)) == ["call-token", "channel-token"]


def test_credentials_that_fail_fail_the_call(tls_world, tls):
    def broken(context, callback):
        raise LookupError("mine")

    bad = grpc.metadata_call_credentials(broken)
    with tls_world.secure_channel(tls) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/contract/Echo")(b"x", timeout=10, credentials=bad)
        assert caught.value.code() is CODE.UNAVAILABLE
        assert "mine" in caught.value.details()


def test_credentials_of_a_call_are_not_sent_in_plaintext(world):
    with world.channel() as channel:
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/contract/Echo")(b"x", timeout=10, credentials=token())
        assert caught.value.code() is CODE.UNAUTHENTICATED


def test_many_channels_that_are_made_at_once_share_one_credentials_object(tls_world, tls):
    plugin = Token("shared")
    both = grpc.composite_channel_credentials(
        tls, grpc.composite_call_credentials(grpc.metadata_call_credentials(plugin), token("other"))
    )
    together, replies = threading.Barrier(12), []

    def use():
        together.wait(20)
        with tls_world.secure_channel(both) as channel:
            seen = channel.unary_unary("/contract/Seen")
            replies.extend(seen(b"", timeout=30, wait_for_ready=True) for _ in range(3))

    threads = [threading.Thread(target=use) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(replies) == 36
    assert all(sorted(authorization(reply)) == ["other", "shared"] for reply in replies)
    assert plugin.asked >= 36
