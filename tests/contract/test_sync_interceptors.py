"""``grpc.intercept_channel`` with all four kinds, around every way to call."""

from __future__ import annotations

import json

import grpc
import pytest

CODE = grpc.StatusCode


class Everything(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Notes what it is given and what comes out, and adds metadata."""

    def __init__(self):
        self.seen = []

    def _intercept(self, continuation, client_call_details, request):
        details = client_call_details._replace(metadata=(("asked", "changed"),))
        outcome = continuation(details, request)
        self.seen.append((client_call_details.method, outcome))
        return outcome

    intercept_unary_unary = _intercept
    intercept_unary_stream = _intercept
    intercept_stream_unary = _intercept
    intercept_stream_stream = _intercept


def asked(reply):
    return [item for item in json.loads(reply)["metadata"] if item[0].startswith("asked")]


def test_all_kinds_see_every_call(channel):
    seen = Everything()
    around = grpc.intercept_channel(channel, seen)
    echo = around.unary_unary("/contract/Seen")
    assert asked(echo(b"", timeout=10)) == [["asked", "changed"]]
    assert asked(echo.with_call(b"", timeout=10)[0]) == [["asked", "changed"]]
    assert asked(echo.future(b"", timeout=10).result()) == [["asked", "changed"]]
    assert len(list(around.unary_stream("/contract/Repeat")(b"x", timeout=10))) == 3
    join = around.stream_unary("/contract/Join")
    assert join(iter([b"x"]), timeout=10) == b"x"
    assert join.future(iter([b"x"]), timeout=10).result() == b"x"
    assert list(around.stream_stream("/contract/EchoAll")(iter([b"x"]), timeout=10)) == [b"x"]
    assert [method for method, _ in seen.seen] == ["/contract/Seen"] * 3 + [
        "/contract/Repeat",
        "/contract/Join",
        "/contract/Join",
        "/contract/EchoAll",
    ]
    for _, outcome in seen.seen:
        assert isinstance(outcome, grpc.Call)
        assert isinstance(outcome, grpc.Future)
        assert outcome.code() is CODE.OK
        assert dict(outcome.initial_metadata()).get("initial") == "one"


def test_it_sees_a_failure_as_the_outcome(channel):
    seen = Everything()
    around = grpc.intercept_channel(channel, seen)
    with pytest.raises(grpc.RpcError):
        around.unary_unary("/contract/Abort")(b"ABORTED mine", timeout=10)
    ((_, outcome),) = seen.seen
    assert isinstance(outcome, grpc.RpcError)
    assert outcome.code() is CODE.ABORTED
    assert outcome.exception() is outcome


def test_it_may_change_the_method_and_answer_itself(channel):
    class Redirect(grpc.UnaryUnaryClientInterceptor):
        def intercept_unary_unary(self, continuation, client_call_details, request):
            return continuation(client_call_details._replace(method="/contract/Echo"), b"other")

    around = grpc.intercept_channel(channel, Redirect())
    assert around.unary_unary("/contract/None")(b"x", timeout=10) == b"other"
    assert around.unary_unary("/contract/None").future(b"x", timeout=10).result() == b"other"


def test_two_of_them_are_called_in_order(channel):
    order: list[str] = []

    class Named(grpc.UnaryUnaryClientInterceptor):
        def __init__(self, name):
            self.name = name

        def intercept_unary_unary(self, continuation, client_call_details, request):
            order.append(self.name)
            return continuation(client_call_details, request)

    around = grpc.intercept_channel(channel, Named("a"), Named("b"))
    assert around.unary_unary("/contract/Echo")(b"x", timeout=10) == b"x"
    assert order == ["a", "b"]


def test_the_intercepted_channel_has_its_state_and_its_end(world):
    with grpc.intercept_channel(world.channel(), Everything()) as around:
        grpc.channel_ready_future(around).result(timeout=10)
        assert around.unary_unary("/contract/Echo")(b"x", timeout=10) == b"x"
    with pytest.raises(ValueError, match="Cannot invoke RPC"):
        around.unary_unary("/contract/Echo")(b"x")
