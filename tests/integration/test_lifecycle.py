"""``Lifecycle`` around a server of your own, in both worlds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from tests.support.calls import free_port, statuses
from tests.support.waiting import wait_until

import etcd_grpc
from etcd_grpc.server.inflight import InFlight, InFlightInterceptor
from etcd_grpc.server.lifecycle import State

ROOT = Path(__file__).parents[2]
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def health_of(port: int, service: str = "") -> Any:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        return stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10).status


class Built:
    """A server as a user builds one, which answers ``/own/Echo``, and ``/own/Wait`` when it may."""

    def __init__(self) -> None:
        self.may = threading.Event()
        self.in_flight = InFlight()
        self.server = grpc.server(
            futures.ThreadPoolExecutor(4),
            interceptors=[InFlightInterceptor(self.in_flight)],
            options=[("grpc.so_reuseport", 0)],
        )
        handlers = {
            "Echo": grpc.unary_unary_rpc_method_handler(lambda request, _context: request),
            "Wait": grpc.unary_unary_rpc_method_handler(self.wait),
        }
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("own", handlers),))
        self.port = self.server.add_insecure_port("127.0.0.1:0")

    def wait(self, request: bytes, _context: Any) -> bytes:
        self.may.wait(100)
        return request


@pytest.fixture
def built() -> Iterator[Built]:
    own = Built()
    yield own
    own.may.set()
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
        for name in ("", service):  # told by a thread of its own
            wait_until(lambda name=name: health_of(built.port, name) == SERVING, "healthy")
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
            wait_until(lambda: life.registered, "known to stand in etcd")
            life.serving()
            assert call(b"x", timeout=10, wait_for_ready=True) == b"x"
            wait_until(lambda: health_of(built.port) == SERVING, "serving in health")


@pytest.mark.parametrize("counted", [True, False])
def test_drain_finishes_what_is_in_flight(etcd, service, raw, built, counted):
    built.server.start()
    in_flight = built.in_flight if counted else None
    with (
        etcd_grpc.Lifecycle(
            built.server,
            service=service,
            port=built.port,
            etcd=etcd,
            settle_s=0,
            grace_s=60,
            in_flight=in_flight,
        ) as life,
        etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel,
    ):
        waiting = channel.unary_unary("/own/Wait").future(b"x", timeout=60)
        wait_until(lambda: built.in_flight.count == 1, "in flight")
        life.drain(wait=False)
        life.drain(wait=False)  # asking again changes nothing
        # Where nobody counts, the key goes first, and the server's own stop finishes the call.
        left = ["draining"] if counted else []
        wait_until(lambda: statuses(raw, service) == left, "leaving")
        assert not waiting.done()
        built.may.set()
        assert life.wait(60)
        assert waiting.result() == b"x"
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
        waiting = channel.unary_unary("/own/Wait").future(b"x", timeout=60)
        wait_until(lambda: built.in_flight.count == 1, "in flight")
        life.drain(wait=False)
        life.hurry()
        assert life.wait(30)
        assert isinstance(waiting.exception(), grpc.RpcError)
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
