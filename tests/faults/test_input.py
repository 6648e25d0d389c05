"""Rows 36, 37 and 40 to 42: what stands in etcd, in a listener, on a disk."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from tests.faults.conftest import allowed
from tests.support.calls import who
from tests.support.etcd import RawEtcd
from tests.support.load import Load
from tests.support.processes import EchoServer
from tests.support.report import record
from tests.support.waiting import wait_until
from tests.support.witnesses import Watcher

import etcd_grpc
from etcd_grpc.demo.view import ServiceView
from etcd_grpc.model import Put
from etcd_grpc.shared_config import config_key
from etcd_grpc.telemetry import events
from etcd_grpc.testing import Cluster


@pytest.fixture
def etcd() -> Iterator[str]:
    with Cluster(1) as cluster:
        yield cluster.endpoints[0]


@pytest.fixture
def raw(etcd) -> Iterator[RawEtcd]:
    with RawEtcd(etcd) as client:
        yield client


def naming(address: str, metadata: dict[str, str] | None = None) -> str:
    return json.dumps({"Op": 0, "Addr": address, "Metadata": metadata})


GARBAGE: list[str | bytes] = [
    "",
    "{",
    "null",
    "[]",
    '{"Addr": 5}',
    '{"Addr": "10.0.0.1:70000"}',
    '{"Addr": "10.0.0.1"}',
    '{"Addr": "10.0.0.1:1", "Metadata": {"weight": -1}}',
    '{"Addr": "10.0.0.1:1", "Metadata": {"weight": "heavy"}}',
    '{"Addr": "\\u001b[31mred:1"}',
    '{"Addr": "<script>alert(1)</script>:1"}',
    '{"Addr": "a\\u0000b:1"}',
    b"\xff\xfe\x00",
    b"\x00" * 100,
    "[" * 5000,
]
HUGE = b'{"Addr": "10.0.0.1:1", "Metadata": "' + b"x" * (1024 * 1024) + b'"}'


def test_row_36_garbage_under_the_prefix(etcd, service, raw, told):
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(EchoServer(register=service, etcd=etcd))
        view = stack.enter_context(ServiceView(service, etcd))
        load = stack.enter_context(Load(service, [etcd]))
        tracemalloc.start()
        stack.callback(tracemalloc.stop)
        for number, value in enumerate(GARBAGE):
            raw.put(f"{service}/garbage-{number}", value)
        raw.put(f"{service}/esc\x1b[31m-<script>", naming("10.0.0.1:1"))
        for _ in range(20):
            raw.put(f"{service}/huge", HUGE)
        entries = len(GARBAGE) + 2
        wait_until(lambda: view.snapshot().rejected == entries, "all are counted", 30)
        last = f"{service}/last"
        raw.put(last, naming("127.0.0.1:1"))
        wait_until(lambda: last in view.snapshot().endpoints, "a good one after them is seen", 30)
        # Bounded: 20 MiB came in, and what was on its way is let go.
        wait_until(lambda: tracemalloc.get_traced_memory()[0] < 8 * 1024 * 1024, "memory is bounded")
        raw.delete(last)
        wait_until(lambda: last not in view.snapshot().endpoints, "gone")
        assert [e.address for e in view.snapshot().endpoints.values()] == [server.address]
        load.assert_clean()
        command = [Path(sys.executable).with_name("etcd-grpc"), "endpoints", service, "--etcd", etcd]
        shown = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
        assert server.address in shown.stdout
        assert f"{entries} entries skipped" in shown.stdout
        assert "\x1b" not in shown.stdout + shown.stderr
        assert "\x00" not in shown.stdout + shown.stderr
    rejected = [event for event in told if isinstance(event, events.EntryRejected)]
    assert len({(event.key, event.revision) for event in rejected}) == len(rejected), "once a revision"
    assert all(len(str(event)) < 1000 and "\x1b" not in str(event) for event in rejected)


def test_row_37_hostile_addresses(service):
    """etcd is reached by another address than loopback here, so loopback is hostile too."""
    hostile = [
        "unix:/var/run/docker.sock",
        "unix:///tmp/x",
        "169.254.169.254:80",
        "[fe80::1]:80",
        "metadata.google.internal:80",
        "127.0.0.1:22",
        "localhost:22",
        "0.0.0.0:80",
    ]
    with Cluster(1) as cluster, RawEtcd(cluster.endpoints[0]) as raw:
        for number, address in enumerate(hostile):
            raw.put(f"{service}/{number}", naming(address))
        raw.put(f"{service}/good", naming("10.0.0.1:1"))
        strict = etcd_grpc.EtcdConfig(cluster.endpoints, allowed_networks=("10.0.0.0/8",))
        with Watcher.of(strict, service) as watcher:
            wait_until(lambda: watcher.sizes, "listed")
            # Loopback is where this etcd is, and so believed unless networks are listed.
            left = {"10.0.0.1:1", "127.0.0.1:22", "localhost:22"}
            assert set(watcher.view.values()) == left
            assert watcher.resolver.snapshot().rejected == len(hostile) - 2
        away = etcd_grpc.EtcdConfig(("etcd.invalid:2379", *cluster.endpoints))
        with Watcher.of(away, service) as watcher:
            wait_until(lambda: watcher.sizes, "listed", 30)
            assert set(watcher.view.values()) == {"10.0.0.1:1"}


def test_row_40_listeners_that_raise_and_block(etcd, service, raw):
    blocked, let_go = threading.Event(), threading.Event()
    seen: list[etcd_grpc.Event] = []

    def blocks(event: etcd_grpc.Event) -> None:
        blocked.set()
        let_go.wait(30)
        seen.append(event)

    def raises(event: etcd_grpc.Event) -> None:
        raise RuntimeError(f"a defect, at {event}")

    with contextlib.ExitStack() as stack:
        stack.enter_context(etcd_grpc.listen(blocks))
        stack.enter_context(etcd_grpc.listen(raises))
        server = stack.enter_context(EchoServer())
        stack.enter_context(
            etcd_grpc.register(service, address=server.address, ttl_s=2, etcd=etcd, settle_s=0)
        )
        load = stack.enter_context(Load(service, [etcd]))
        assert blocked.wait(10)
        for number in range(1500):  # more than a mailbox holds
            raw.put(f"{service}/x", naming(f"10.0.0.1:{number + 1}", {"status": "draining"}))
        wait_until(lambda: len(raw.get(f"{service}/")) == 2, "the lease is kept meanwhile")
        load.assert_clean()
        let_go.set()
        wait_until(lambda: "10.0.0.1:1500" in _addresses(seen), "the latest state has come")
    assert any(isinstance(event, events.Dropped) for event in seen)


def _addresses(seen) -> set[str]:
    """All that a listener was told of."""
    changes = [change for event in _of(seen, events.Changed) for change in event.changes]
    return {change.endpoint.address for change in _of(changes, Put)}


@pytest.mark.parametrize("state", ["good", "changed", "readable by others"])
def test_rows_41_and_42_cold_start_without_etcd(service, tmp_path, state, told):
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(Cluster(1))
        config = etcd_grpc.EtcdConfig(cluster.endpoints, cache_dir=tmp_path / "cache")
        servers = [
            stack.enter_context(EchoServer(register=service, etcd=cluster.endpoints[0]))
            for _ in range(2)
        ]
        with etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=config) as channel:
            channel.unary_unary("/echo/UnaryUnary")(b"x", timeout=10)
        (saved,) = wait_until(lambda: list((tmp_path / "cache").glob("*.json")), "saved")
        assert not saved.name.endswith(".config.json"), "there is none"
        assert saved.stat().st_mode & 0o777 == 0o600
        if state == "changed":
            saved.write_bytes(saved.read_bytes().replace(b"serving", b"SERVING"))
        elif state == "readable by others":
            saved.chmod(0o644)
        cluster.kill(0)
        with etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=config) as channel:
            call = channel.unary_unary("/echo/UnaryUnary")
            began = time.monotonic()
            if state == "good":
                answers = {who(call(b"x", timeout=10))}
                took_s = time.monotonic() - began
                assert took_s < allowed(1)
                record(42, "cold start without etcd, with a saved view: until calls succeed", took_s, 1)
                everyone = {server.address for server in servers}
                wait_until(
                    lambda: answers.add(who(call(b"x", timeout=10))) or answers == everyone,
                    "both are called",
                )
                cluster.restart(0)
                wait_until(lambda: _of(told, events.Fresh), "fresh again", 20)
                call(b"x", timeout=10)
            else:
                with pytest.raises(grpc.RpcError) as caught:
                    call(b"x", timeout=2)
                assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
                assert cluster.endpoints[0] in caught.value.details()
                wait_until(lambda: _of(told, events.SnapshotFailed), "told")
    assert len(_of(told, events.SnapshotLoaded)) == (state == "good")
    assert len(_of(told, events.SnapshotFailed)) == (state != "good"), "one warning"


@pytest.mark.parametrize("state", ["good", "changed", "gone"])
def test_rows_41_and_42_the_service_config_of_a_cold_start(service, tmp_path, state, told):
    """The last good one is obeyed by the first call; what etcd says counts as soon as it answers."""
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(Cluster(1))
        raw = stack.enter_context(RawEtcd(cluster.endpoints[0]))
        config = etcd_grpc.EtcdConfig(cluster.endpoints, cache_dir=tmp_path / "cache")
        for _ in range(3):
            stack.enter_context(EchoServer(register=service, etcd=cluster.endpoints[0]))
        key = config_key(service).decode()
        raw.put(key, '{"loadBalancingConfig": [{"pick_first": {}}]}')
        with etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=config) as channel:
            channel.unary_unary("/echo/UnaryUnary")(b"x", timeout=10)
            wait_until(lambda: channel.explain().policy == "pick_first", "obeyed")
            if state == "gone":
                raw.delete(key)
                wait_until(lambda: channel.explain().policy == "round_robin", "no config any more")

        def saved() -> list[Path]:
            return list((tmp_path / "cache").glob("*.config.json"))

        wait_until(lambda: len(saved()) == (state != "gone"), "saved, if there is one")
        if state == "changed":
            (changed,) = saved()
            changed.write_bytes(changed.read_bytes().replace(b"pick_first", b"pick_worst"))
        cluster.kill(0)
        with etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=config) as channel:
            call = channel.unary_unary("/echo/UnaryUnary")
            answers = {who(call(b"x", timeout=10)) for _ in range(12)}
            if state == "good":
                assert len(answers) == 1
            else:
                wait_until(
                    lambda: answers.add(who(call(b"x", timeout=10))) or len(answers) == 3,
                    "all are called",
                )
            cluster.restart(0)
            cluster.wait_healthy()
            raw.put(key, '{"loadBalancingConfig": [{"random": {}}]}')
            wait_until(lambda: channel.explain().policy == "random", "etcd is obeyed again", 20)
            raw.delete(key)
            wait_until(lambda: channel.explain().policy == "round_robin", "none any more", 20)
        wait_until(lambda: not saved(), "none is saved")
    assert len(_of(told, events.ServiceConfigLoaded)) == (state == "good")
    assert len(_of(told, events.SnapshotFailed)) == (state == "changed")


def test_row_42_cold_start_without_etcd_and_without_a_saved_view(service):
    with Cluster(1) as cluster:
        cluster.kill(0)
        with etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=cluster.endpoints) as channel:
            began = time.monotonic()
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary("/echo/UnaryUnary")(b"x", timeout=1.5)
            took_s = time.monotonic() - began
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert cluster.endpoints[0] in caught.value.details()
    assert 1.4 < took_s < allowed(1.5)
    record(42, "cold start without etcd or saved view: the call's deadline of 1.5 s", took_s, 2)


def _of(told, kind) -> list:
    return [event for event in told if isinstance(event, kind)]
