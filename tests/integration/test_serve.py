"""``serve`` as a process, in both worlds: found, asked for its health, drained, gone."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tests.support.calls import free_port, statuses, who
from tests.support.serving import ServeServer
from tests.support.waiting import wait_until

import etcd_grpc
from etcd_grpc.identity import told_id

WORLDS = pytest.mark.parametrize("aio", [False, True], ids=["sync", "aio"])
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
def serving(etcd: str, service: str) -> Iterator[Any]:
    """Starts servers of the test's service."""
    started: list[ServeServer] = []

    def start(*more: str, **settings: Any) -> ServeServer:
        started.append(ServeServer(service, *more, etcd=etcd, **settings))
        return started[-1]

    yield start
    for server in started:
        server.__exit__(None, None, None)


def healthy(stub: health_pb2_grpc.HealthStub, name: str = "") -> None:
    """Wait until a server that is ready says so: a thread of its own may be about to set it."""
    request = health_pb2.HealthCheckRequest(service=name)
    wait_until(lambda: stub.Check(request, timeout=10).status == SERVING, "healthy")


def entries(raw: Any, service: str) -> list[dict[str, Any]]:
    return [json.loads(kv.value) for kv in raw.get(f"{service}/").values()]


@WORLDS
def test_it_is_found_called_and_gone_after_sigterm(etcd, service, raw, serving, aio):
    server = serving(aio=aio, settle_s=0.1, zone="z")
    (entry,) = entries(raw, service)
    assert entry["Addr"] == server.address
    assert (entry["Metadata"]["zone"], entry["Metadata"]["identified"]) == ("z", True)
    with etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel:
        assert who(channel.unary_unary("/echo/UnaryUnary")(b"x", timeout=10)) == server.address
    server.terminate()
    assert server.wait() == 0
    assert server.read_line() == "ended"
    assert entries(raw, service) == []
    log = server.log()
    assert f"serving {service} at {server.address}" in log
    assert f"draining {service} at {server.address}" in log


@WORLDS
def test_it_tells_its_health_and_who_it_is(service, raw, serving, aio):
    server = serving(aio=aio, id="greeter-1")
    with grpc.insecure_channel(server.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", service, "echo"):
            healthy(health, name)
            request = health_pb2.HealthCheckRequest(service=name)
            answer, call = health.Check.with_call(request, timeout=10)
            assert answer.status == SERVING
            assert told_id(call.initial_metadata()) == "greeter-1"
            watch = health.Watch(request, timeout=10)
            assert next(watch).status == SERVING
            assert told_id(watch.initial_metadata()) == "greeter-1"
            watch.cancel()
        with pytest.raises(grpc.RpcError) as unknown:
            health.Check(health_pb2.HealthCheckRequest(service="unknown"), timeout=10)
        assert unknown.value.code() is grpc.StatusCode.NOT_FOUND


@WORLDS
def test_draining_is_told_to_who_watches_and_does_not_wait_for_him(serving, aio):
    server = serving(aio=aio, settle_s=0.2, grace_s=60)
    with grpc.insecure_channel(server.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        healthy(stub)
        watch = stub.Watch(health_pb2.HealthCheckRequest(), timeout=50)
        assert next(watch).status == SERVING
        server.terminate()
        assert next(watch).status == NOT_SERVING
        began = time.monotonic()
        assert server.wait() == 0
        assert time.monotonic() - began < 30, "the open watch held it up"
        assert list(watch) == []


@WORLDS
def test_watches_of_health_take_no_threads(serving, aio):
    server = serving(aio=aio, max_workers=1)
    with grpc.insecure_channel(server.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        healthy(stub)
        watches = [stub.Watch(health_pb2.HealthCheckRequest(), timeout=50) for _ in range(5)]
        assert [next(watch).status for watch in watches] == [SERVING] * 5
        assert who(channel.unary_unary("/echo/UnaryUnary")(b"x", timeout=30)) == server.address
        for watch in watches:
            watch.cancel()


@WORLDS
def test_what_is_in_flight_is_finished_and_nothing_else_waited_for(etcd, service, raw, serving, aio):
    server = serving(aio=aio, settle_s=0.1, grace_s=60)
    with etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel:
        sleeping = channel.unary_unary("/echo/Sleep").future(b"7", timeout=50)
        streaming = channel.unary_stream("/echo/Stream")(b"3", timeout=50)
        next(streaming)
        server.terminate()
        began = time.monotonic()
        wait_until(
            lambda: [e["Metadata"]["status"] for e in entries(raw, service)] == ["draining"], "draining"
        )
        assert len(list(streaming)) > 5
        assert entries(raw, service), "the key stands while calls are in flight"
        assert who(sleeping.result()) == server.address
        assert server.wait() == 0
        assert time.monotonic() - began < 30


@WORLDS
def test_what_arrives_while_it_stands_still_is_answered(service, serving, raw, aio):
    """Its share of the processor is used up, say, just when it has told that it leaves."""
    server = serving(aio=aio, settle_s=1, grace_s=30)
    with grpc.insecure_channel(server.address) as channel:
        call = channel.unary_unary("/echo/UnaryUnary")
        call(b"x", timeout=10)
        server.terminate()
        wait_until(lambda: statuses(raw, service) == ["draining"], "it leaves")
        server.process.send_signal(signal.SIGSTOP)
        calls = [call.future(b"x", timeout=30) for _ in range(50)]
        time.sleep(1.5)  # longer than it gives clients
        server.process.send_signal(signal.SIGCONT)
        assert {who(call.result()) for call in calls} == {server.address}
    assert server.wait() == 0


@WORLDS
def test_what_lasts_longer_than_the_grace_is_cut_off(etcd, service, raw, serving, aio):
    server = serving(aio=aio, settle_s=0.1, grace_s=1)
    with etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel:
        streaming = channel.unary_stream("/echo/Stream")(b"60", timeout=60)
        next(streaming)
        server.terminate()
        with pytest.raises(grpc.RpcError):
            list(streaming)
        assert server.wait() == 0
    assert entries(raw, service) == []
    assert "stopped" in server.log()


def test_a_thread_that_does_not_end_does_not_hold_up_the_process(etcd, service, raw, serving):
    server = serving(settle_s=0.1, grace_s=1)
    with etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel:
        # As a stream: of a call with one answer, gRPC tells the metadata only with the answer.
        sleeping = channel.unary_stream("/echo/Sleep")(b"60", timeout=60)
        sleeping.initial_metadata()  # until it has begun
        server.terminate()
        assert server.wait(20) == -15
        with pytest.raises(grpc.RpcError):
            next(sleeping)
    assert entries(raw, service) == []
    assert "hold up the end of the process" in server.log()


@WORLDS
def test_several_services_share_a_server(etcd, service, raw, serving, aio):
    server = serving(f"{service}.second", aio=aio, settle_s=0.1)
    ids = set()
    for name in (service, f"{service}.second"):
        (entry,) = entries(raw, name)
        ids.add(entry["Metadata"]["id"])
        with etcd_grpc.insecure_channel(f"etcd:///{name}", etcd=etcd) as channel:
            assert who(channel.unary_unary("/echo/UnaryUnary")(b"x", timeout=10)) == server.address
    assert len(ids) == 1
    server.terminate()
    assert server.wait() == 0
    assert entries(raw, service) == entries(raw, f"{service}.second") == []


@WORLDS
def test_reflection_names_what_was_added(serving, aio):
    server = serving(aio=aio)
    with grpc.insecure_channel(server.address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        (answer,) = stub.ServerReflectionInfo(iter([request]), timeout=10)
    names = {service.name for service in answer.list_services_response.service}
    assert names == {"echo", "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}


@WORLDS
@pytest.mark.parametrize("settings", [{"reflection": False}, {"reflection": False, "channelz": True}])
def test_reflection_and_channelz_are_as_asked_for(serving, aio, settings):
    server = serving(aio=aio, **settings)
    with grpc.insecure_channel(server.address) as channel:
        codes = []
        for method in (
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            "/grpc.channelz.v1.Channelz/GetServers",
        ):
            call = channel.unary_unary(method).future(b"", timeout=10)
            codes.append(grpc.StatusCode.OK if call.exception() is None else call.exception().code())
    offered = grpc.StatusCode.OK if "channelz" in settings else grpc.StatusCode.UNIMPLEMENTED
    assert codes == [grpc.StatusCode.UNIMPLEMENTED, offered]


@WORLDS
def test_without_etcd_it_does_not_start_unless_it_may(service, aio):
    nowhere = f"127.0.0.1:{free_port()}"
    with ServeServer(service, aio=aio, etcd=nowhere, timeout_s=1, wait=False) as refused:
        assert refused.read_line().startswith("refused EtcdUnavailableError cannot register")
        assert refused.wait() == 1
    with ServeServer(service, aio=aio, etcd=nowhere, timeout_s=1, required=False) as server:
        with grpc.insecure_channel(server.address) as channel:
            assert who(channel.unary_unary("/echo/UnaryUnary")(b"x", timeout=10)) == server.address
        server.terminate()
        assert server.wait() == 0


def test_a_second_process_with_the_same_id_is_refused(service, serving):
    serving(id="a", ttl_s=5)
    second = serving(id="a", ttl_s=5, wait=False)
    assert second.read_line().startswith("refused DuplicateInstanceError")
    assert second.wait() == 1


def test_outside_of_the_main_thread_it_is_ended_by_its_lifecycle(etcd, service, raw):
    lives: list[etcd_grpc.Lifecycle] = []
    thread = threading.Thread(
        target=lambda: etcd_grpc.serve(
            lambda _server: None, service=service, etcd=etcd, settle_s=0, on_ready=lives.append
        )
    )
    thread.start()
    wait_until(lambda: lives, "ready")
    (entry,) = entries(raw, service)
    assert entry["Addr"] == lives[0].instances[0].address
    lives[0].drain(wait=False)
    thread.join(20)
    assert not thread.is_alive()
    assert entries(raw, service) == []
