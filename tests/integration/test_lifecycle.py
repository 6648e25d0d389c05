"""``Lifecycle`` around a server of your own, in both worlds."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from tests.support.calls import free_port
from tests.support.waiting import wait_until

import etcd_grpc
from etcd_grpc.server.aio import Lifecycle as AsyncLifecycle
from etcd_grpc.server.inflight import AsyncInFlightInterceptor, InFlight, InFlightInterceptor
from etcd_grpc.server.lifecycle import State

ROOT = Path(__file__).parents[2]
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def statuses(raw: Any, service: str) -> list[str]:
    values = (json.loads(kv.value) for kv in raw.get(f"{service}/").values())
    return [value["Metadata"]["status"] for value in values]


def health_of(port: int, service: str = "") -> Any:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        return stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10).status


class Built:
    """A server as a user builds one, which answers ``/own/Echo`` and sleeps in ``/own/Sleep``."""

    def __init__(self) -> None:
        self.in_flight = InFlight()
        self.server = grpc.server(
            futures.ThreadPoolExecutor(4),
            interceptors=[InFlightInterceptor(self.in_flight)],
            options=[("grpc.so_reuseport", 0)],
        )
        handlers = {
            "Echo": grpc.unary_unary_rpc_method_handler(lambda request, _context: request),
            "Sleep": grpc.unary_unary_rpc_method_handler(self.sleep),
        }
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("own", handlers),))
        self.port = self.server.add_insecure_port("127.0.0.1:0")

    @staticmethod
    def sleep(request: bytes, _context: Any) -> bytes:
        time.sleep(float(request))
        return request


@pytest.fixture
def built() -> Iterator[Built]:
    own = Built()
    yield own
    own.server.stop(0).wait()


def test_it_is_registered_inside_of_the_block_and_stopped_after_it(etcd, service, raw, built):
    life = etcd_grpc.Lifecycle(built.server, service=service, port=built.port, etcd=etcd, settle_s=0)
    health_pb2_grpc.add_HealthServicer_to_server(life.health, built.server)
    built.server.start()
    assert health_of(built.port) == NOT_SERVING
    assert life.state is State.STARTING
    with life:
        assert life.state is State.SERVING
        assert life.registered
        assert health_of(built.port) == health_of(built.port, service) == SERVING
        (entry,) = (json.loads(kv.value) for kv in raw.get(f"{service}/").values())
        assert entry["Metadata"]["id"] == life.instances[0].id
        assert entry["Metadata"]["identified"] is True
        assert not life.wait(0.05)
    assert life.state is State.STOPPED
    assert not life.registered
    assert life.wait()
    assert statuses(raw, service) == []
    built.server.wait_for_termination(10)


def test_without_its_health_servicer_it_does_not_claim_to_tell_its_id(etcd, service, raw, built):
    built.server.start()
    with etcd_grpc.Lifecycle(built.server, service=service, port=built.port, etcd=etcd, settle_s=0):
        (entry,) = (json.loads(kv.value) for kv in raw.get(f"{service}/").values())
        assert "identified" not in entry["Metadata"]


def test_not_serving_gets_no_calls_until_serving_again(etcd, service, raw, built):
    life = etcd_grpc.Lifecycle(built.server, service=service, port=built.port, etcd=etcd, settle_s=0)
    health_pb2_grpc.add_HealthServicer_to_server(life.health, built.server)
    built.server.start()
    with life, etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel:
        call = channel.unary_unary("/own/Echo")
        assert call(b"x", timeout=10) == b"x"
        for _ in range(2):
            life.not_serving()
            wait_until(lambda: statuses(raw, service) == ["not_serving"], "not serving in etcd")
            wait_until(lambda: health_of(built.port) == NOT_SERVING, "not serving in health")
            with pytest.raises(grpc.RpcError) as nobody:
                wait_until(lambda: call(b"x", timeout=10) is None, "nobody takes calls")
            assert "takes calls" in nobody.value.details()
            assert life.registered
            life.serving()
            assert call(b"x", timeout=10, wait_for_ready=True) == b"x"
            wait_until(lambda: health_of(built.port) == SERVING, "serving in health")


@pytest.mark.parametrize("counted", [True, False])
def test_drain_finishes_what_is_in_flight(etcd, service, raw, built, counted):
    built.server.start()
    in_flight = built.in_flight if counted else None
    with (
        etcd_grpc.Lifecycle(
            built.server, service=service, port=built.port, etcd=etcd, settle_s=0, in_flight=in_flight
        ) as life,
        etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel,
    ):
        sleeping = channel.unary_unary("/own/Sleep").future(b"1.5", timeout=30)
        wait_until(lambda: built.in_flight.count == 1, "in flight")
        life.drain(wait=False)
        life.drain(wait=False)  # asking again changes nothing
        if counted:
            wait_until(lambda: statuses(raw, service) == ["draining"], "draining")
        assert life.wait(60)
        assert sleeping.result() == b"1.5"
    assert built.in_flight.count == 0
    assert statuses(raw, service) == []


def test_hurry_cuts_off(etcd, service, raw, built):
    built.server.start()
    with (
        etcd_grpc.Lifecycle(
            built.server,
            service=service,
            port=built.port,
            etcd=etcd,
            settle_s=40,
            grace_s=50,
            in_flight=built.in_flight,
        ) as life,
        etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel,
    ):
        sleeping = channel.unary_unary("/own/Sleep").future(b"3", timeout=30)
        wait_until(lambda: built.in_flight.count == 1, "in flight")
        life.drain(wait=False)
        life.hurry()
        assert life.wait(30)
        assert isinstance(sleeping.exception(), grpc.RpcError)
    assert statuses(raw, service) == []


def test_without_etcd_the_block_is_not_entered_and_the_server_goes_on(service, built):
    built.server.start()
    nowhere = f"127.0.0.1:{free_port()}"
    life = etcd_grpc.Lifecycle(
        built.server, service=service, port=built.port, etcd=nowhere, timeout_s=0.5
    )
    with pytest.raises(etcd_grpc.EtcdUnavailableError), life:
        pytest.fail("entered")
    with grpc.insecure_channel(f"127.0.0.1:{built.port}") as channel:
        assert channel.unary_unary("/own/Echo")(b"x", timeout=10) == b"x"
    with pytest.raises(etcd_grpc.ConfigurationError, match="make a new one"):
        life.start()


def test_one_of_two_services_that_cannot_be_registered_leaves_none(etcd, service, raw, built):
    built.server.start()
    with etcd_grpc.register(f"{service}.b", port=free_port(), id="a", ttl_s=5, settle_s=0, etcd=etcd):
        life = etcd_grpc.Lifecycle(
            built.server,
            service=(f"{service}.a", f"{service}.b"),
            id="a",
            port=built.port,
            ttl_s=6,
            etcd=etcd,
        )
        with pytest.raises(etcd_grpc.DuplicateInstanceError):
            life.start()
        assert statuses(raw, f"{service}.a") == []
        assert statuses(raw, f"{service}.b") == ["serving"]


def test_a_forked_child_leaves_the_parents_registration_alone(etcd, service, raw):
    code = f"""
        import os
        from concurrent import futures
        import grpc, etcd_grpc

        server = grpc.server(futures.ThreadPoolExecutor(1))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        with etcd_grpc.Lifecycle(server, service={service!r}, port=port, settle_s=0) as life:
            child = os.fork()
            if child == 0:
                life.close()
                os._exit(0 if not life.registered else 1)
            assert os.waitpid(child, 0)[1] == 0
            assert life.registered
        print("well")
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(code)],
        env={**os.environ, "ETCDCTL_ENDPOINTS": etcd},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "well\n", done.stderr


def test_what_nobody_closed_is_withdrawn_at_the_end_of_the_interpreter(etcd, service, raw):
    code = f"""
        from concurrent import futures
        import grpc, etcd_grpc

        server = grpc.server(futures.ThreadPoolExecutor(1))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        life = etcd_grpc.Lifecycle(server, service={service!r}, port=port, ttl_s=60).start()
        print(life.registered)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "ETCDCTL_ENDPOINTS": etcd},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
    assert statuses(raw, service) == []


# --- asyncio


@pytest.fixture
async def aio_built() -> AsyncIterator[Any]:
    in_flight = InFlight()
    server = grpc.aio.server(
        futures.ThreadPoolExecutor(2), interceptors=[AsyncInFlightInterceptor(in_flight)]
    )

    async def sleep(request: bytes, _context: Any) -> bytes:
        await asyncio.sleep(float(request))
        return request

    async def numbers(request: bytes, _context: Any) -> AsyncIterator[bytes]:
        for number in range(int(request)):
            yield b"%d" % number
            await asyncio.sleep(0.02)

    def thread_sleep(request: bytes, _context: Any) -> bytes:
        time.sleep(float(request))
        return request

    def thread_numbers(request: bytes, _context: Any) -> Iterator[bytes]:
        for number in range(int(request)):
            yield b"%d" % number
            time.sleep(0.02)

    handlers = {
        "Sleep": grpc.unary_unary_rpc_method_handler(sleep),
        "Numbers": grpc.unary_stream_rpc_method_handler(numbers),
        "ThreadSleep": grpc.unary_unary_rpc_method_handler(thread_sleep),
        "ThreadNumbers": grpc.unary_stream_rpc_method_handler(thread_numbers),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("own", handlers),))
    server.port = server.add_insecure_port("127.0.0.1:0")
    server.in_flight = in_flight
    yield server
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
        ("Sleep", b"1", False),
        ("ThreadSleep", b"1", False),
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
            in_flight=aio_built.in_flight,
        ) as life,
        grpc.aio.insecure_channel(f"127.0.0.1:{aio_built.port}") as channel,
    ):
        make = channel.unary_stream if streams else channel.unary_unary
        call = make(f"/own/{method}")(order, timeout=30)
        first = [await call.read()] if streams else []

        async def under_way() -> bool:
            return aio_built.in_flight.count == 1 or method == "ThreadNumbers"  # which is not counted

        await eventually(under_way, "in flight")
        life.drain_soon()

        async def draining() -> bool:
            return statuses(raw, service) == ["draining"] or method == "ThreadNumbers"

        await eventually(draining, "draining")
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

        async def idle() -> bool:
            return aio_built.in_flight.count == 0

        await eventually(idle, "it is over")


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


def test_a_health_servicer_of_ones_own_is_left_in_place(etcd, service, raw):
    """Then it is not ours to say how the server is, nor who."""
    seen: list[Any] = []

    def add(server: Any) -> None:
        health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), server)

    def ready(life: etcd_grpc.Lifecycle) -> None:
        (entry,) = (json.loads(kv.value) for kv in raw.get(f"{service}/").values())
        seen.append("identified" in entry["Metadata"])
        seen.append(health_of(int(entry["Addr"].rpartition(":")[2])))
        life.drain(wait=False)

    etcd_grpc.serve(add, service=service, etcd=etcd, settle_s=0, on_ready=ready)
    assert seen == [False, SERVING]
