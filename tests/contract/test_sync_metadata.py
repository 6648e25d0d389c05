"""Metadata goes both ways, text and binary, in every shape."""

from __future__ import annotations

import json

import grpc
import pytest
from tests.support.contract_server import INITIAL, TRAILING

SENT = (("asked", "yes"), ("asked-bin", b"\x00\xfe\xff"), ("asked", "twice"))
REFUSED = (ValueError, grpc.RpcError)  # older releases of gRPC raise the first
ARRIVED = [["asked", "yes"], ["asked-bin", "00feff"], ["asked", "twice"]]


def asked(reply):
    return [item for item in json.loads(reply)["metadata"] if item[0].startswith("asked")]


@pytest.mark.parametrize("metadata", [SENT, list(SENT)], ids=["tuple", "list"])
def test_metadata_of_a_unary_call_arrives(channel, metadata):
    seen = channel.unary_unary("/contract/Seen")
    assert asked(seen(b"", timeout=10, metadata=metadata)) == ARRIVED
    assert asked(seen.with_call(b"", timeout=10, metadata=metadata)[0]) == ARRIVED
    assert asked(seen.future(b"", timeout=10, metadata=metadata).result()) == ARRIVED


def test_metadata_of_a_stream_arrives(channel):
    (reply,) = channel.unary_stream("/contract/SeenStream")(b"", timeout=10, metadata=SENT)
    assert asked(reply) == ARRIVED


@pytest.mark.parametrize("shape", ["unary_stream", "stream_stream"])
def test_metadata_of_the_server_arrives_with_a_stream(channel, shape):
    if shape == "unary_stream":
        call = channel.unary_stream("/contract/Repeat")(b"x", timeout=10)
    else:
        call = channel.stream_stream("/contract/EchoAll")(iter([b"x"]), timeout=10)
    assert list(call.initial_metadata()) == list(INITIAL)
    assert len(list(call)) in {1, 3}
    assert list(call.trailing_metadata()) == list(TRAILING)


def test_metadata_of_the_server_are_named_tuples(channel):
    _, call = channel.unary_unary("/contract/Echo").with_call(b"x", timeout=10)
    first = call.initial_metadata()[0]
    assert (first.key, first.value) == INITIAL[0]


@pytest.mark.parametrize("bad", [(("Upper", "x"),), (("text", b"\xff\xfe"),)], ids=["upper", "binary"])
def test_metadata_that_cannot_be_sent_is_refused(channel, bad):
    echo = channel.unary_unary("/contract/Echo")
    for call in (echo, echo.with_call, lambda *a, **kw: echo.future(*a, **kw).result()):
        with pytest.raises(REFUSED, match="nvalid"):
            call(b"x", timeout=10, metadata=bad)
    with pytest.raises(REFUSED, match="nvalid"):
        next(channel.unary_stream("/contract/Repeat")(b"x", timeout=10, metadata=bad))
    assert echo(b"x", timeout=10) == b"x"


def test_an_empty_metadata_is_none(channel):
    assert asked(channel.unary_unary("/contract/Seen")(b"", timeout=10, metadata=())) == []
    assert grpc.StatusCode.OK is (
        channel.unary_unary("/contract/Echo").with_call(b"x", timeout=10, metadata=())[1].code()
    )
