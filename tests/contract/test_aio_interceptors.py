"""Interceptors of asyncio channels: once for each call, with everything they may do."""

from __future__ import annotations

import asyncio
import json

import grpc
import pytest
from tests.support.contract_server import INITIAL, TRAILING
from tests.support.waiting import until

CODE = grpc.StatusCode


class Everything(
    grpc.aio.UnaryUnaryClientInterceptor,
):
    """Notes what it sees of unary calls, and changes the details as told."""

    def __init__(self, **changes):
        self.changes = changes
        self.details = []
        self.calls = []

    async def intercept_unary_unary(self, continuation, client_call_details, request):
        self.details.append(client_call_details)
        call = await continuation(client_call_details._replace(**self.changes), request)
        self.calls.append(call)
        return call


class Streams(grpc.aio.UnaryStreamClientInterceptor):
    def __init__(self):
        self.calls = []

    async def intercept_unary_stream(self, continuation, client_call_details, request):
        self.calls.append(call := await continuation(client_call_details, request))
        return call


class Requests(grpc.aio.StreamUnaryClientInterceptor):
    def __init__(self):
        self.calls = []

    async def intercept_stream_unary(self, continuation, client_call_details, request_iterator):
        self.calls.append(call := await continuation(client_call_details, request_iterator))
        return call


class Both(grpc.aio.StreamStreamClientInterceptor):
    def __init__(self):
        self.calls = []

    async def intercept_stream_stream(self, continuation, client_call_details, request_iterator):
        self.calls.append(call := await continuation(client_call_details, request_iterator))
        return call


def asked(reply):
    return [item for item in json.loads(reply)["metadata"] if item[0].startswith("asked")]


async def test_each_kind_sees_its_calls_once(world):
    kinds = [Everything(), Streams(), Requests(), Both()]
    async with world.aio_channel(interceptors=kinds) as channel:
        assert await channel.unary_unary("/contract/Echo")(b"x", timeout=10) == b"x"
        assert len([r async for r in channel.unary_stream("/contract/Repeat")(b"x", timeout=10)]) == 3
        assert await channel.stream_unary("/contract/Join")(iter([b"x"]), timeout=10) == b"x"
        both = channel.stream_stream("/contract/EchoAll")(iter([b"x"]), timeout=10)
        assert [r async for r in both] == [b"x"]
    shapes = [
        grpc.aio.UnaryUnaryCall,
        grpc.aio.UnaryStreamCall,
        grpc.aio.StreamUnaryCall,
        grpc.aio.StreamStreamCall,
    ]
    for kind, shape in zip(kinds, shapes, strict=True):
        (call,) = kind.calls
        assert isinstance(call, shape)
        assert call.done()
        assert await call.code() is CODE.OK


async def test_the_details_are_those_of_the_call(world):
    seen = Everything()
    async with world.aio_channel(interceptors=[seen]) as channel:
        echo = channel.unary_unary("/contract/Echo")
        await echo(b"x", timeout=10, metadata=(("asked", "yes"),), wait_for_ready=True)
        await echo(b"x")
    details, bare = seen.details
    assert isinstance(details, grpc.aio.ClientCallDetails)
    assert details.method == b"/contract/Echo"
    assert (details.timeout, details.credentials, details.wait_for_ready) == (10, None, True)
    assert isinstance(details.metadata, grpc.aio.Metadata)
    assert list(details.metadata) == [("asked", "yes")]
    assert (bare.timeout, bare.wait_for_ready, list(bare.metadata)) == (None, None, [])


async def test_they_are_called_in_order_and_the_first_sees_the_last_ones_doing(world):
    order: list[str] = []

    class Named(grpc.aio.UnaryUnaryClientInterceptor):
        def __init__(self, name):
            self.name = name

        async def intercept_unary_unary(self, continuation, client_call_details, request):
            order.append(f"{self.name} in")
            call = await continuation(client_call_details, request + self.name.encode())
            await call
            order.append(f"{self.name} out")
            return call

    async with world.aio_channel(interceptors=[Named("a"), Named("b")]) as channel:
        assert await channel.unary_unary("/contract/Echo")(b"x", timeout=10) == b"xab"
    assert order == ["a in", "b in", "b out", "a out"]


@pytest.mark.parametrize("method", [b"/contract/Echo", "/contract/Echo"], ids=["bytes", "str"])
async def test_it_may_change_the_method(world, method):
    if world.kind == "plain" and isinstance(method, str):
        pytest.skip("a plain channel takes bytes only")
    async with world.aio_channel(interceptors=[Everything(method=method)]) as channel:
        assert await channel.unary_unary("/contract/None")(b"x", timeout=10) == b"x"
        assert await channel.unary_unary("/contract/None")(b"y", timeout=10) == b"y"


async def test_it_may_change_metadata_timeout_and_waiting(world):
    changed = Everything(metadata=grpc.aio.Metadata(("asked", "changed")), timeout=20)
    async with world.aio_channel(interceptors=[changed]) as channel:
        reply = await channel.unary_unary("/contract/Seen")(b"", metadata=(("asked", "first"),))
        assert asked(reply) == [["asked", "changed"]]
        assert 10 < json.loads(reply)["time_remaining"] < 21
    late = Everything(timeout=0.1)
    async with world.aio_channel(interceptors=[late]) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/contract/Sleep")(b"1", timeout=30)
        assert caught.value.code() is CODE.DEADLINE_EXCEEDED


async def test_it_may_answer_itself(world):
    class Cached(grpc.aio.UnaryUnaryClientInterceptor):
        async def intercept_unary_unary(self, continuation, client_call_details, request):
            return b"cached"

    async with world.aio_channel(interceptors=[Cached()]) as channel:
        call = channel.unary_unary("/contract/None")(b"x", timeout=10)
        assert await call == b"cached"
        assert await call.code() is CODE.OK
        assert await call.initial_metadata() is None
        assert call.done()
        assert not call.cancelled()


async def test_it_may_answer_a_stream_with_an_iterator_of_its_own(world):
    class Shouting(grpc.aio.UnaryStreamClientInterceptor):
        async def intercept_unary_stream(self, continuation, client_call_details, request):
            call = await continuation(client_call_details, request)

            async def shout():
                async for response in call:
                    yield response.upper()

            return shout()

    async with world.aio_channel(interceptors=[Shouting()]) as channel:
        call = channel.unary_stream("/contract/Repeat")(b"x", timeout=10)
        assert [r async for r in call] == [b"X0", b"X1", b"X2"]
        assert await call.code() is CODE.OK
        assert list(await call.trailing_metadata()) == list(TRAILING)


async def test_it_may_call_twice(world):
    class Twice(grpc.aio.UnaryUnaryClientInterceptor):
        async def intercept_unary_unary(self, continuation, client_call_details, request):
            call = await continuation(client_call_details, request)
            if await call.code() is not CODE.OK:
                call = await continuation(
                    client_call_details._replace(method=b"/contract/Echo"), b"again"
                )
            return call

    async with world.aio_channel(interceptors=[Twice()]) as channel:
        assert await channel.unary_unary("/contract/None")(b"x", timeout=10) == b"again"


async def test_an_error_in_it_is_the_calls(world):
    class Broken(grpc.aio.UnaryUnaryClientInterceptor):
        async def intercept_unary_unary(self, continuation, client_call_details, request):
            raise LookupError("mine")

    async with world.aio_channel(interceptors=[Broken()]) as channel:
        with pytest.raises(LookupError, match="mine"):
            await channel.unary_unary("/contract/Echo")(b"x", timeout=10)


async def test_an_error_of_the_server_goes_through_it(world):
    seen = Everything()
    async with world.aio_channel(interceptors=[seen]) as channel:
        call = channel.unary_unary("/contract/Abort")(b"FAILED_PRECONDITION not now", timeout=10)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.details() == "not now"
        for asked_of in (call, seen.calls[0]):
            assert await asked_of.code() is CODE.FAILED_PRECONDITION
            assert await asked_of.details() == "not now"
            assert list(await asked_of.initial_metadata()) == list(INITIAL)
            assert list(await asked_of.trailing_metadata()) == list(TRAILING)
        assert call.done()


async def test_a_call_can_be_cancelled_inside_it(world):
    entered = asyncio.Event()

    class Slow(grpc.aio.UnaryUnaryClientInterceptor):
        async def intercept_unary_unary(self, continuation, client_call_details, request):
            entered.set()
            await asyncio.sleep(30)
            return await continuation(client_call_details, request)

    told: list[object] = []
    async with world.aio_channel(interceptors=[Slow()]) as channel:
        call = channel.unary_unary("/contract/Echo")(b"x", timeout=10)
        call.add_done_callback(told.append)
        await asyncio.wait_for(entered.wait(), 10)
        assert call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert call.cancelled()
        assert call.done()
        assert await call.code() is CODE.CANCELLED
        assert await call.details() == "Locally cancelled by application!"
    assert told == [call]


async def test_closing_the_channel_cancels_a_call_inside_it(world):
    entered = asyncio.Event()

    class Slow(grpc.aio.UnaryUnaryClientInterceptor):
        async def intercept_unary_unary(self, continuation, client_call_details, request):
            entered.set()
            await asyncio.sleep(30)
            return await continuation(client_call_details, request)

    channel = world.aio_channel(interceptors=[Slow()])
    call = channel.unary_unary("/contract/Echo")(b"x", timeout=60)
    await asyncio.wait_for(entered.wait(), 10)
    await channel.close()
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_requests_can_be_written_through_it(world):
    async with world.aio_channel(interceptors=[Requests(), Both()]) as channel:
        call = channel.stream_stream("/contract/EchoAll")(timeout=10)
        for request in (b"a", b"b"):
            await call.write(request)
            assert await call.read() == request
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        join = channel.stream_unary("/contract/Join")(timeout=10)
        await join.write(b"a")
        await join.write(b"b")
        await join.done_writing()
        assert await join == b"a,b"


async def test_done_callbacks_come_with_the_call_that_the_application_has(world):
    told: list[object] = []
    async with world.aio_channel(interceptors=[Everything()]) as channel:
        call = channel.unary_unary("/contract/Echo")(b"x", timeout=10)
        call.add_done_callback(told.append)
        await call
        await until(lambda: told, "the callback")
        assert told == [call]
        call.add_done_callback(told.append)
        assert told == [call, call]


async def test_what_is_no_interceptor_is_refused(world):
    with pytest.raises(ValueError, match="must be UnaryUnaryClientInterceptor or"):
        world.aio_channel(interceptors=[object()])


async def test_the_final_call_is_complete_for_it(world):
    """As tracing does: it awaits code and metadata of the call before the application sees it."""
    noted: list[object] = []

    class Tracing(grpc.aio.UnaryUnaryClientInterceptor):
        async def intercept_unary_unary(self, continuation, client_call_details, request):
            call = await continuation(client_call_details, request)
            call.add_done_callback(lambda _: noted.append("done"))
            noted.extend([await call.code(), await call.details(), await call.initial_metadata()])
            noted.append(call.time_remaining() <= 10)
            return call

    async with world.aio_channel(interceptors=[Tracing()]) as channel:
        assert await channel.unary_unary("/contract/Echo")(b"x", timeout=10) == b"x"
    assert noted[0] == "done"
    assert noted[1:3] == [CODE.OK, ""]
    assert noted[4] is True
