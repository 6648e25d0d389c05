"""``Lifecycle`` around an asyncio server of your own."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.support.calls import free_port, statuses
from tests.support.waiting import until

import etcd_grpc
from etcd_grpc.server.aio import Lifecycle as AsyncLifecycle
from etcd_grpc.server.inflight import AsyncInFlightInterceptor, InFlight
from etcd_grpc.server.lifecycle import State

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
async def aio_built() -> AsyncIterator[Any]:
    """A server as a user builds one; its handlers end when they ``may``."""
    in_flight, may = InFlight(), threading.Event()
    server = grpc.aio.server(
        futures.ThreadPoolExecutor(2), interceptors=[AsyncInFlightInterceptor(in_flight)]
    )

    async def wait(request: bytes, _context: Any) -> bytes:
        await until(may.is_set, "it may end", 100)
        return request

    async def numbers(request: bytes, _context: Any) -> AsyncIterator[bytes]:
        for number in range(int(request)):
            yield b"%d" % number
            await until(may.is_set, "it may go on", 100)

    def thread_wait(request: bytes, _context: Any) -> bytes:
        may.wait(100)
        return request

    def thread_numbers(request: bytes, _context: Any) -> Iterator[bytes]:
        for number in range(int(request)):
            yield b"%d" % number
            may.wait(100)

    handlers = {
        "Wait": grpc.unary_unary_rpc_method_handler(wait),
        "Numbers": grpc.unary_stream_rpc_method_handler(numbers),
        "ThreadWait": grpc.unary_unary_rpc_method_handler(thread_wait),
        "ThreadNumbers": grpc.unary_stream_rpc_method_handler(thread_numbers),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("own", handlers),))
    server.port = server.add_insecure_port("127.0.0.1:0")
    server.in_flight, server.may = in_flight, may
    yield server
    may.set()
    await server.stop(0)


async def aio_health_of(port: int) -> Any:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        return (await stub.Check(health_pb2.HealthCheckRequest(), timeout=10)).status


async def eventually(condition: Any, what: str) -> None:
    deadline = time.monotonic() + 10
    while not await condition():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.01)


async def test_aio_it_is_registered_inside_of_the_block(etcd, service, raw, aio_built):
    life = AsyncLifecycle(aio_built, service=service, port=aio_built.port, etcd=etcd, settle_s=0)
    health_pb2_grpc.add_HealthServicer_to_server(life.health, aio_built)
    await aio_built.start()
    assert await aio_health_of(aio_built.port) == NOT_SERVING
    async with life:
        assert life.state is State.SERVING
        assert life.registered

        async def healthy() -> bool:
            return await aio_health_of(aio_built.port) == SERVING

        await eventually(healthy, "healthy")
        life.not_serving()

        async def away() -> bool:
            return statuses(raw, service) == ["not_serving"] and not await healthy()

        await eventually(away, "not serving")
        life.serving()
        await eventually(healthy, "healthy again")
    assert life.state is State.STOPPED
    assert statuses(raw, service) == []


@pytest.mark.parametrize(
    ("method", "order", "streams"),
    [
        ("Wait", b"x", False),
        ("ThreadWait", b"x", False),
        ("Numbers", b"50", True),
        ("ThreadNumbers", b"50", True),
    ],
)
async def test_aio_drain_finishes_what_is_in_flight(
    etcd, service, raw, aio_built, method, order, streams
):
    await aio_built.start()
    async with (
        AsyncLifecycle(
            aio_built,
            service=service,
            port=aio_built.port,
            etcd=etcd,
            settle_s=0,
            grace_s=60,
            in_flight=aio_built.in_flight,
        ) as life,
        grpc.aio.insecure_channel(f"127.0.0.1:{aio_built.port}") as channel,
    ):
        make = channel.unary_stream if streams else channel.unary_unary
        call = make(f"/own/{method}")(order, timeout=60)
        first = [await call.read()] if streams else []

        counted = method != "ThreadNumbers"
        await until(lambda: aio_built.in_flight.count == counted, "in flight")
        life.drain_soon()
        # What is not counted is finished by the server's own stop, when the key has gone.
        left = ["draining"] if counted else []
        await until(lambda: statuses(raw, service) == left, "leaving")
        aio_built.may.set()
        if streams:
            while (answer := await call.read()) is not grpc.aio.EOF:
                first.append(answer)
            assert len(first) == 50
        else:
            assert await call == order
        await life.wait()
    assert aio_built.in_flight.count == 0


async def test_aio_a_cancelled_start_leaves_nothing(service, aio_built):
    await aio_built.start()
    nowhere = f"127.0.0.1:{free_port()}"
    life = AsyncLifecycle(
        aio_built, service=service, port=aio_built.port, etcd=nowhere, timeout_s=60, settle_s=0
    )
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await life.start()
    assert life.state is State.STOPPED


async def test_aio_a_stream_that_the_client_leaves_is_no_longer_counted(aio_built):
    await aio_built.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{aio_built.port}") as channel:
        call = channel.unary_stream("/own/Numbers")(b"1000", timeout=30)
        await call.read()
        assert aio_built.in_flight.count == 1
        call.cancel()
        await until(lambda: aio_built.in_flight.count == 0, "it is over")


def test_aio_a_server_whose_loop_was_closed_is_withdrawn_all_the_same(etcd, service, raw):
    """An application that does not wait for the end: asyncio.run cancels, and the block drains."""

    async def main() -> None:
        server = grpc.aio.server()
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with AsyncLifecycle(server, service=service, port=port, etcd=etcd, settle_s=0) as life:
            threading.Timer(0.2, asyncio.get_running_loop().call_soon_threadsafe, [task_cancel]).start()
            await life.wait()

    def task_cancel() -> None:
        for task in asyncio.all_tasks():
            if task.get_name() == "main":
                task.cancel()

    async def named() -> None:
        await asyncio.create_task(main(), name="main")

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(named())
    assert statuses(raw, service) == []


async def test_aio_serve_that_is_cancelled_leaves_in_order(etcd, service, raw):
    before = signal.getsignal(signal.SIGTERM)
    ready = asyncio.Event()
    serving = asyncio.create_task(
        etcd_grpc.aio.serve(
            lambda _server: None,
            service=service,
            etcd=etcd,
            settle_s=0,
            on_ready=lambda _life: ready.set(),
        )
    )
    await ready.wait()
    assert statuses(raw, service) == ["serving"]
    assert signal.getsignal(signal.SIGTERM) != before
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert statuses(raw, service) == []
    assert signal.getsignal(signal.SIGTERM) == before
