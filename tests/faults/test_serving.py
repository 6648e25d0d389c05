"""Rows 19, 23 to 25 and 32: a server whose loop is blocked, that leaves, that is in a hurry."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from benchmarks.rolling_restart import Rolling
from benchmarks.served import SLEEP
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.faults.conftest import allowed
from tests.support.calls import free_port, statuses, who
from tests.support.etcd import RawEtcd
from tests.support.report import record
from tests.support.serving import ServeServer
from tests.support.waiting import wait_until

import etcd_grpc
from etcd_grpc.testing import Cluster

WORLDS = pytest.mark.parametrize("aio", [False, True], ids=["sync", "aio"])
SERVING = health_pb2.HealthCheckResponse.SERVING


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster(1) as cluster:
        yield cluster


@pytest.fixture
def raw(cluster) -> Iterator[RawEtcd]:
    with RawEtcd(cluster.endpoints[0]) as client:
        yield client


def test_row_19_the_event_loop_is_blocked_for_three_ttls(cluster, service, raw, recovers):
    ttl_s, etcd = 5, cluster.endpoints[0]
    settings = {"aio": True, "etcd": etcd, "ttl_s": ttl_s}
    with (
        ServeServer(service, **settings, max_lag_s=0.5) as blocked,
        ServeServer(service, **settings, max_lag_s=None) as other,
    ):
        ((key, before),) = [
            (key, kv)
            for key, kv in raw.get(f"{service}/").items()
            if json.loads(kv.value)["Addr"] == blocked.address
        ]
        with (
            grpc.insecure_channel(blocked.address) as direct,
            etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel,
        ):
            call = channel.unary_unary("/echo/UnaryUnary")
            call(b"x", timeout=10)
            began = time.monotonic()
            blocking = direct.unary_unary("/echo/Block").future(b"%d" % (3 * ttl_s), timeout=60)
            recovers(
                19,
                "event loop blocked: until the instance is not serving (bound 0.5 s)",
                lambda: sorted(statuses(raw, service)) == ["not_serving", "serving"],
                2,
                began,
            )
            wait_until(
                lambda: {who(call(b"x", timeout=30)) for _ in range(4)} == {other.address}, "left"
            )
            lost = 0
            while not blocking.done():
                answered = who(call(b"x", timeout=30))
                assert answered == other.address or blocking.done()
                found = raw.get(f"{service}/")[key]
                lost += (found.create_revision, found.lease) != (before.create_revision, before.lease)
                time.sleep(0.02)
            assert blocking.result()
            assert time.monotonic() - began >= 3 * ttl_s, "the run is void: it was not blocked"
            assert lost == 0, "the lease was not kept"
            unblocked = time.monotonic()
            recovers(
                19,
                "event loop goes on: until the instance serves again",
                lambda: statuses(raw, service) == ["serving", "serving"],
                3,
                unblocked,
            )
            health = health_pb2_grpc.HealthStub(direct)
            wait_until(
                lambda: health.Check(health_pb2.HealthCheckRequest()).status == SERVING, "healthy"
            )
            wait_until(lambda: who(call(b"x", timeout=10)) == blocked.address, "called again")
        assert "the event loop of" in blocked.log()


class Leaving:
    """What is seen from outside while a server leaves: its key is gone when its listener closes."""

    def __init__(self, raw: RawEtcd) -> None:
        self._raw = raw
        self.seen: list[str] = []

    def __call__(self, port: int) -> Callable[[], object]:
        """A call of 0.7 s is in flight when it is told to leave."""
        channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        # As a stream: of a call with one answer, gRPC tells the metadata only with the answer.
        calling = channel.unary_stream(SLEEP)(b"0.7", timeout=30, wait_for_ready=True)
        calling.initial_metadata()  # until it has begun
        watcher = threading.Thread(target=self._watch, args=(port,), name="leaving")
        watcher.start()

        def ended() -> None:
            watcher.join(60)
            assert list(calling) == [b"0.7"], "what was in flight is finished"
            channel.close()

        return ended

    def _watch(self, port: int) -> None:
        deadline = time.monotonic() + 50
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
            except ConnectionRefusedError:
                keys = self._raw.get("rolling/")
                there = any(key.endswith(f":{port}") for key in keys)
                self.seen.append("the key stands" if there else "the key is gone")
                return
            time.sleep(0.002)
        self.seen.append("the listener stays")


def test_row_23_rolling_restart_under_load(cluster, raw):
    leaving = Leaving(raw)
    rolling = Rolling(rate=500, pause_s=1, settings={"settle_s": 1}, on_leave=leaving)
    reports = rolling.run(cluster.endpoints[0])
    assert leaving.seen == ["the key is gone"] * 3
    for kind in ("sync", "aio"):
        assert reports[kind]["failed"] == {}, reports[kind]["errors"]
        assert reports[kind]["calls"] > 500, "the run is void"


@pytest.fixture
def busy(cluster, service) -> Iterator[Any]:
    """Starts a server that has a stream in flight for a minute, and no patience of its own."""
    with contextlib.ExitStack() as stack:

        def start(**settings: Any) -> ServeServer:
            etcd = cluster.endpoints[0]
            server = stack.enter_context(ServeServer(service, etcd=etcd, **settings))
            channel = stack.enter_context(grpc.insecure_channel(server.address))
            stream = channel.unary_stream("/echo/Stream")(b"60", timeout=60)
            stack.callback(stream.cancel)
            next(stream)
            return server

        yield start


@WORLDS
@pytest.mark.parametrize("etcd_is", ["there", "down"])
def test_row_24_sigterm_twice(cluster, service, raw, busy, aio, etcd_is):
    server = busy(aio=aio, settle_s=30, grace_s=50)
    server.terminate()
    wait_until(lambda: statuses(raw, service) == ["draining"], "draining")
    if etcd_is == "down":
        cluster.kill(0)
    began = time.monotonic()
    server.terminate()
    assert server.wait() in {0, -signal.SIGTERM}
    took_s = time.monotonic() - began
    record(24, f"SIGTERM twice, etcd {etcd_is}: until the exit", took_s, 1)
    assert took_s < allowed(1)
    attempts = server.log().count("could not be withdrawn")
    assert attempts == (1 if etcd_is == "down" else 0)
    if etcd_is == "there":
        assert statuses(raw, service) == []


@WORLDS
def test_row_24_a_signal_that_interrupts_nothing_is_noticed(cluster, service, aio):
    with ServeServer(service, aio=aio, deaf=True, etcd=cluster.endpoints[0], settle_s=0.1) as server:
        server.terminate()
        assert server.wait() == 0
        assert "draining" in server.log()


@WORLDS
@pytest.mark.parametrize("how", ["killed", "silent"])
def test_row_25_sigterm_while_etcd_is_down(cluster, service, busy, aio, how):
    grace_s = 3
    server = busy(aio=aio, settle_s=0.5, grace_s=grace_s, ttl_s=10)
    cluster.kill(0) if how == "killed" else cluster.pause(0)
    began = time.monotonic()
    server.terminate()
    assert server.wait() in {0, -signal.SIGTERM}
    took_s = time.monotonic() - began
    record(25, f"SIGTERM while etcd is {how}, a call in flight: until the exit", took_s, grace_s + 1)
    assert took_s > grace_s - 0.5, "what is in flight has its grace"
    assert took_s < allowed(grace_s + 1)


@WORLDS
def test_row_25_nothing_in_flight_is_not_waited_for(cluster, service, aio):
    with ServeServer(service, aio=aio, etcd=cluster.endpoints[0], grace_s=60) as server:
        cluster.kill(0)
        began = time.monotonic()
        server.terminate()
        assert server.wait() == 0
        assert time.monotonic() - began < 30


@WORLDS
def test_row_25_sigterm_while_it_waits_to_register(service, aio):
    nowhere = f"127.0.0.1:{free_port()}"
    with ServeServer(service, aio=aio, etcd=nowhere, timeout_s=300, wait=False) as server:
        wait_until(lambda: "etcd takes no registrations" in server.log(), "trying", 30)
        server.terminate()
        assert server.wait(20) == 0
        assert server.read_line() == "ended"


@WORLDS
def test_row_32_the_port_is_taken(cluster, service, raw, aio):
    etcd = cluster.endpoints[0]
    with ServeServer(f"{service}.first", etcd=etcd) as first:
        with ServeServer(service, aio=aio, etcd=etcd, port=first.port, wait=False) as second:
            refused = second.read_line()
            assert refused.startswith(f"refused ConfigurationError cannot listen on {first.address}: ")
            assert "another process listens there" in refused
            assert second.wait() == 1
            assert "Traceback" not in second.log()
        assert raw.get(f"{service}/") == {}
        assert len(raw.get(f"{service}.first/")) == 1


@WORLDS
@pytest.mark.parametrize(
    ("host", "why"), [("192.0.2.1", "this host has no such address"), ("no.such.host.invalid", "")]
)
def test_row_32_a_host_that_is_not_ours(cluster, service, raw, aio, host, why):
    with ServeServer(service, aio=aio, etcd=cluster.endpoints[0], host=host, wait=False) as server:
        refused = server.read_line()
        assert refused.startswith(f"refused ConfigurationError cannot listen on {host}:0: ")
        assert why in refused
        assert server.wait() == 1
    assert raw.get(f"{service}/") == {}
