"""Serializers and deserializers, and what happens when they fail."""

from __future__ import annotations

import grpc
import pytest

CODE = grpc.StatusCode


def broken(_):
    raise LookupError("mine")


def test_they_are_used_in_every_shape(channel):
    def dumps(text: str) -> bytes:
        return text.encode()

    def loads(data: bytes) -> str:
        return data.decode()

    assert channel.unary_unary("/contract/Echo", dumps, loads)("ü", timeout=10) == "ü"
    call = channel.unary_stream("/contract/Repeat", dumps, loads)("ü", timeout=10)
    assert list(call) == ["ü0", "ü1", "ü2"]
    join = channel.stream_unary("/contract/Join", dumps, loads)
    assert join(iter(["ü", "é"]), timeout=10) == "ü,é"
    both = channel.stream_stream("/contract/EchoAll", dumps, loads)
    assert list(both(iter(["ü", "é"]), timeout=10)) == ["ü", "é"]


@pytest.mark.parametrize("way", ["call", "with_call", "future", "unary_stream"])
def test_a_request_that_cannot_be_serialized_fails_where_the_call_is_made(channel, way, caplog):
    echo = channel.unary_unary("/contract/Echo", broken)
    repeat = channel.unary_stream("/contract/Repeat", broken)
    call = {
        "call": echo,
        "with_call": echo.with_call,
        "future": echo.future,
        "unary_stream": repeat,
    }[way]
    with pytest.raises(grpc.RpcError) as caught:
        call(b"x", timeout=10)
    assert caught.value.code() is CODE.INTERNAL
    assert caught.value.details() == "Exception serializing request!"
    assert "mine" in caplog.text


@pytest.mark.parametrize("shape", ["stream_unary", "stream_stream"])
def test_a_request_of_a_stream_that_cannot_be_serialized_ends_the_call(channel, shape, caplog):
    if shape == "stream_unary":
        call = channel.stream_unary("/contract/Join", broken).future(iter([b"x"]), timeout=10)
    else:
        call = channel.stream_stream("/contract/EchoAll", broken)(iter([b"x"]), timeout=10)
    assert call.code() is CODE.INTERNAL
    assert call.details() == "Exception serializing request!"
    assert "mine" in caplog.text


def test_a_response_that_cannot_be_deserialized_is_an_internal_error(channel, caplog):
    echo = channel.unary_unary("/contract/Echo", None, broken)
    for call in (echo, echo.with_call, lambda *a, **kw: echo.future(*a, **kw).result()):
        with pytest.raises(grpc.RpcError) as caught:
            call(b"x", timeout=10)
        assert caught.value.code() is CODE.INTERNAL
        assert caught.value.details() == "Exception deserializing response!"
    stream = channel.unary_stream("/contract/Repeat", None, broken)(b"x", timeout=10)
    with pytest.raises(grpc.RpcError) as caught:
        next(stream)
    assert caught.value.code() is CODE.INTERNAL
    assert "mine" in caplog.text


def test_a_serializer_runs_once_for_a_call(channel):
    serialized: list[bytes] = []

    def dumps(request: bytes) -> bytes:
        serialized.append(request)
        return request

    echo = channel.unary_unary("/contract/Echo", dumps)
    echo(b"1", timeout=10)
    echo.with_call(b"2", timeout=10)
    echo.future(b"3", timeout=10).result()
    assert serialized == [b"1", b"2", b"3"]
