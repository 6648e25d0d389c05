"""Endpoints that say that they are not well, and addresses where somebody else answers."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from concurrent import futures

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from tests.support.threads import no_thread_begins
from tests.support.waiting import wait_until

import etcd_grpc
from etcd_grpc.identity import INSTANCE_KEY
from etcd_grpc.shared_config import config_key
from etcd_grpc.telemetry import events

CONFIG = {"healthCheckConfig": {"serviceName": "greeter"}}
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVER_THREADS = "server in this process"


class Who(grpc.GenericRpcHandler):
    def __init__(self) -> None:
        self.name = b""
        self.calls = 0

    def service(self, details):
        if details.method != "/a.B/Who":
            return None
        return grpc.unary_unary_rpc_method_handler(self.answer)

    def answer(self, request, context):
        self.calls += 1
        return self.name


class Health(health.HealthServicer):
    """Tells an instance id, if it is given one."""

    def __init__(self, instance: str | None) -> None:
        super().__init__()
        self._instance = instance

    def Check(self, request, context):  # noqa: N802 - gRPC's name
        if self._instance is not None:
            context.send_initial_metadata(((INSTANCE_KEY, self._instance),))
        return super().Check(request, context)


class Server:
    """A server in this process with a health service."""

    def __init__(self, port: int = 0, instance: str | None = None, *, with_health: bool = True) -> None:
        self.who = Who()
        self.server = grpc.server(
            futures.ThreadPoolExecutor(8, thread_name_prefix=SERVER_THREADS),
            handlers=[self.who],
            options=[("grpc.so_reuseport", 0)],
        )
        self.health = Health(instance)
        if with_health:
            health_pb2_grpc.add_HealthServicer_to_server(self.health, self.server)
        self.health.set("greeter", SERVING)
        self.port = self.server.add_insecure_port(f"127.0.0.1:{port}")
        self.address = f"127.0.0.1:{self.port}"
        self.who.name = (instance or self.address).encode()
        self.server.start()

    def close(self) -> None:
        self.server.stop(0).wait()


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def serve(stack):
    def start(*arguments, **named) -> Server:
        server = Server(*arguments, **named)
        stack.callback(server.close)
        return server

    return start


def states(channel) -> dict[str, str]:
    return {row.address: row.state for row in channel.explain().endpoints}


def test_an_endpoint_that_is_not_serving_gets_no_calls(etcd, service, announce, serve):
    servers = [serve() for _ in range(3)]
    for server in servers:
        announce(server.address)
    with etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd, service_config=CONFIG) as channel:
        call = channel.unary_unary("/a.B/Who")
        call(b"", timeout=5)
        wait_until(lambda: set(states(channel).values()) == {"READY"}, "all are well")
        with no_thread_begins(apart_from=SERVER_THREADS):  # C-core's own watch, no thread for it
            servers[0].health.set("greeter", NOT_SERVING)
            wait_until(lambda: states(channel)[servers[0].address] == "TRANSIENT_FAILURE", "noticed")
            count = servers[0].who.calls
            answered = {call(b"", timeout=5) for _ in range(60)}
            assert answered == {server.address.encode() for server in servers[1:]}
            assert servers[0].who.calls == count
        servers[0].health.set("greeter", SERVING)
        wait_until(lambda: call(b"", timeout=5) == servers[0].address.encode(), "it is back")


def test_no_call_is_lost_when_an_endpoint_says_that_it_is_not_serving(etcd, service, announce, serve):
    servers = [serve() for _ in range(2)]
    for server in servers:
        announce(server.address)
    with etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd, service_config=CONFIG) as channel:
        call = channel.unary_unary("/a.B/Who")
        call(b"", timeout=5)
        for _ in range(10):
            for status in (NOT_SERVING, SERVING):
                servers[0].health.set("greeter", status)
                for _ in range(30):
                    call(b"", timeout=5)


def test_a_server_without_a_health_service_counts_as_well(etcd, service, announce, serve):
    announce(serve(with_health=False).address)
    with etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd, service_config=CONFIG) as channel:
        assert channel.unary_unary("/a.B/Who")(b"", timeout=5)


def test_with_none_serving_a_call_fails_at_once_and_says_so(etcd, service, announce, serve):
    server = serve()
    server.health.set("greeter", NOT_SERVING)
    announce(server.address)
    with etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd, service_config=CONFIG) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/a.B/Who")(b"", timeout=20)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_health_checking_may_be_turned_on_and_off_in_etcd_and_no_call_is_lost(
    etcd, service, announce, serve, raw
):
    well, ill = serve(), serve()
    ill.health.set("greeter", NOT_SERVING)
    for server in (well, ill):
        announce(server.address)
    key = config_key(service).decode()
    with etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel:
        call = channel.unary_unary("/a.B/Who")

        def answered() -> set[bytes]:
            return {call(b"", timeout=5) for _ in range(10)}

        both = {well.address.encode(), ill.address.encode()}
        wait_until(lambda: answered() == both, "both")
        raw.put(key, json.dumps(CONFIG))
        wait_until(lambda: answered() == {well.address.encode()}, "only the one that is well")
        raw.delete(key)
        wait_until(lambda: answered() == both, "both again")


async def test_asyncio_channels_check_health_too(etcd, service, announce, serve):
    well, ill = serve(), serve()
    ill.health.set("greeter", NOT_SERVING)
    for server in (well, ill):
        announce(server.address)
    async with etcd_grpc.aio.insecure_channel(
        f"etcd:///{service}", etcd=etcd, service_config=CONFIG
    ) as channel:
        call = channel.unary_unary("/a.B/Who")
        assert {await call(b"", timeout=5) for _ in range(20)} == {well.address.encode()}


# Identity.


def register(stack, service, server, etcd, instance):
    """As ``serve`` does: the entry says that the server tells its id."""
    from etcd_grpc.registration import Registration, plan

    planned = plan(
        service,
        port=None,
        host=None,
        address=server.address,
        id=instance,
        weight=1.0,
        zone="",
        version="",
        metadata=None,
        ttl_s=10,
        settle_s=0.0,
        timeout_s=5.0,
        required=True,
        etcd=etcd,
        identified=True,
    )
    return stack.enter_context(Registration(planned))


def test_the_right_instance_gets_calls(etcd, service, stack, serve):
    server = serve(instance="a1")
    register(stack, service, server, etcd, "a1")
    with etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel:
        assert channel.unary_unary("/a.B/Who")(b"", timeout=5) == b"a1"


@pytest.mark.parametrize("other", ["b2", None])
def test_row_31_a_port_that_another_process_has_taken_gets_no_calls(etcd, service, stack, serve, other):
    seen = []
    right, lost = serve(instance="a1"), serve(instance="a2")
    register(stack, service, right, etcd, "a1")
    register(stack, service, lost, etcd, "a2")
    with (
        etcd_grpc.listen(seen.append),
        etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel,
    ):
        call = channel.unary_unary("/a.B/Who")
        wait_until(lambda: {call(b"", timeout=5) for _ in range(4)} == {b"a1", b"a2"}, "both")
        lost.close()
        thief = serve(lost.port, instance=other)
        wait_until(lambda: [e for e in seen if isinstance(e, events.Misplaced)], "recognised", 30)
        for _ in range(30):
            assert call(b"", timeout=5) == b"a1"
        assert thief.who.calls == 0
        wait_until(lambda: states(channel)[lost.address] == "TRANSIENT_FAILURE", "it counts as failing")
        thief.close()
        serve(lost.port, instance="a2")
        wait_until(lambda: {call(b"", timeout=5) for _ in range(4)} == {b"a1", b"a2"}, "back", 30)


def test_alone_a_misplaced_endpoint_fails_calls_and_says_why(etcd, service, stack, serve):
    server = serve(instance="b2")
    register(stack, service, server, etcd, "a1")
    with etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/a.B/Who")(b"", timeout=20)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "instance b2 answers there" in caught.value.details()


async def test_asyncio_channels_ask_too(etcd, service, stack, serve):
    right, wrong = serve(instance="a1"), serve(instance="b2")
    register(stack, service, right, etcd, "a1")
    register(stack, service, wrong, etcd, "a2")
    async with etcd_grpc.aio.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel:
        call = channel.unary_unary("/a.B/Who")
        assert {await call(b"", timeout=5) for _ in range(20)} == {b"a1"}
        await asyncio.sleep(0)
