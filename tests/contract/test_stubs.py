"""Generated stubs, which pass ``_registered_method``, of several releases of gRPC's compiler."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

GREETER = Path(__file__).resolve().parents[2] / "examples" / "greeter"
SHAPES = ["unary_unary", "unary_stream", "stream_unary", "stream_stream"]


@pytest.fixture
def greeter(monkeypatch):
    """The generated modules of the example."""
    monkeypatch.syspath_prepend(str(GREETER))
    names = ("helloworld_pb2", "helloworld_pb2_grpc")
    yield tuple(importlib.import_module(name) for name in names)
    for name in names:
        sys.modules.pop(name)


def test_a_generated_stub_works(channel, greeter):
    messages, services = greeter
    stub = services.GreeterStub(channel)
    request = messages.HelloRequest(name="ü")
    assert stub.SayHello(request, timeout=10) == messages.HelloReply(message="ü")
    assert stub.SayHello.with_call(request, timeout=10)[0].message == "ü"
    assert stub.SayHello.future(request, timeout=10).result().message == "ü"


async def test_a_generated_stub_works_in_asyncio(achannel, greeter):
    messages, services = greeter
    reply = await services.GreeterStub(achannel).SayHello(messages.HelloRequest(name="ü"), timeout=10)
    assert reply.message == "ü"


@pytest.mark.parametrize("registered", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_takes_what_generated_code_passes(channel, shape, registered):
    method = {
        "unary_unary": "Echo",
        "unary_stream": "Repeat",
        "stream_unary": "Join",
        "stream_stream": "EchoAll",
    }[shape]
    made = getattr(channel, shape)(
        f"/contract/{method}",
        request_serializer=bytes,
        response_deserializer=bytes,
        _registered_method=registered,
    )
    answer = made(b"x" if shape.startswith("unary") else iter([b"x"]), timeout=10)
    assert b"".join(answer) if shape.endswith("stream") else answer


@pytest.mark.parametrize("registered", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
async def test_every_shape_of_asyncio_takes_it_too(achannel, shape, registered):
    method = {
        "unary_unary": "Echo",
        "unary_stream": "Repeat",
        "stream_unary": "Join",
        "stream_stream": "EchoAll",
    }[shape]
    made = getattr(achannel, shape)(
        f"/contract/{method}",
        request_serializer=bytes,
        response_deserializer=bytes,
        _registered_method=registered,
    )
    call = made(b"x" if shape.startswith("unary") else iter([b"x"]), timeout=10)
    if shape.endswith("stream"):
        assert [r async for r in call]
    else:
        assert await call
