"""Rows 16 to 18, 20, 21 and 34: what happens to the registering process, its clock and its key."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.faults.conftest import allowed
from tests.support.calls import free_port
from tests.support.etcd import RawEtcd
from tests.support.load import Load
from tests.support.processes import EchoServer
from tests.support.report import record
from tests.support.waiting import wait_until
from tests.support.witnesses import Watcher

import etcd_grpc
from etcd_grpc.testing import Cluster

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def etcd() -> Iterator[str]:
    with Cluster(1) as cluster:
        yield cluster.endpoints[0]


@pytest.fixture
def raw(etcd) -> Iterator[RawEtcd]:
    with RawEtcd(etcd) as client:
        yield client


def run_python(code: str, etcd: str, **environment: str) -> str:
    """Run ``code`` in a process of its own; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "ETCDCTL_ENDPOINTS": etcd, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def libfaketime() -> Path | None:
    """The library that moves a process's wall clock, where there is a wheel of it (Linux, x86-64)."""
    found = importlib.util.find_spec("libfaketime")
    if found is None or found.origin is None:
        return None
    library = Path(found.origin).parent / "vendor/libfaketime/src/libfaketime.so.1"
    return library if library.exists() else None


@pytest.mark.skipif(libfaketime() is None, reason="libfaketime is not installed here")
@pytest.mark.parametrize("hours", [1, -1])
def test_row_16_wall_clock_moves(etcd, service, tmp_path, hours):
    clock = tmp_path / "clock"
    clock.write_text("+0\n")
    code = f"""
        import pathlib, time
        from tests.support.processes import EchoServer
        from tests.support.etcd import RawEtcd
        import etcd_grpc

        with (
            EchoServer() as server,
            etcd_grpc.register({service!r}, address=server.address, ttl_s=5, settle_s=0),
            etcd_grpc.insecure_channel("etcd:///{service}") as channel,
            RawEtcd({etcd!r}) as raw,
        ):
            call = channel.unary_unary("/echo/UnaryUnary")
            call(b"x", timeout=10)
            (before,) = raw.get("{service}/").values()
            earlier = time.time()
            moved = pathlib.Path({str(tmp_path / "moved")!r})
            moved.write_text("{hours * 3600:+d}\\n")
            moved.replace({str(clock)!r})  # as a whole: who reads an empty one is ended by libfaketime
            end = time.monotonic() + 7  # longer than the lease without a beat
            while time.monotonic() < end:
                call(b"x", timeout=10)
                (now,) = raw.get("{service}/").values()
                assert now.create_revision == before.create_revision
                time.sleep(0.05)
            assert abs(time.time() - earlier - {hours} * 3600) < 100, "the clock has not moved"
        print("well")
    """
    moved = {
        "LD_PRELOAD": str(libfaketime()),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    assert run_python(code, etcd, **moved) == "well\n"


def test_no_deadline_is_measured_by_the_wall_clock():
    """Only the age of what was saved is, and whether a certificate is valid."""
    users = {
        path.relative_to(ROOT / "src/etcd_grpc").as_posix()
        for path in (ROOT / "src/etcd_grpc").rglob("*.py")
        if re.search(
            r"\btime\.time\(|datetime\.now|dt\.datetime\.now|\bfrom time import", path.read_text()
        )
    }
    ages = {"resolver.py", "shared_config.py"}
    validity = {"tls/look.py", "tls/material.py", "tls/watcher.py", "devcluster/authority.py"}
    assert users <= ages | validity | {"certificates.py"}, users


def test_row_17_process_stopped_for_three_ttls(etcd, service, raw, recovers):
    ttl_s = 2
    with contextlib.ExitStack() as stack:
        servers = [
            stack.enter_context(EchoServer(register=service, etcd=etcd, ttl_s=ttl_s)) for _ in range(3)
        ]
        watcher = stack.enter_context(Watcher([etcd], service))
        wait_until(lambda: len(watcher.view) == 3, "all registered")
        stopped = servers[0]
        stopped.process.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        recovers(
            17,
            f"process stopped: until clients drop it (TTL {ttl_s} s)",
            lambda: stopped.address not in watcher.view.values(),
            ttl_s + 2,
            began,
        )
        time.sleep(max(0.0, began + 3 * ttl_s - time.monotonic()))
        stopped.process.send_signal(signal.SIGCONT)
        recovers(
            17,
            "process goes on: until it is registered again",
            lambda: stopped.address in watcher.view.values(),
            2,
            time.monotonic(),
        )
        wait_until(lambda: len(raw.get(f"{service}/")) == 3, "each has one key")
        time.sleep(2 * ttl_s)
        wait_until(lambda: len(raw.get(f"{service}/")) == 3, "each has one key still")


@pytest.mark.parametrize("what", ["key", "lease"])
def test_row_18_deleted_by_hand(etcd, service, raw, recovers, what):
    with etcd_grpc.register(service, port=5000, ttl_s=60, etcd=etcd, settle_s=0):
        for _ in range(3):
            ((key, found),) = raw.get(f"{service}/").items()
            if what == "key":
                raw.delete(key)
            else:
                raw.revoke(found.lease)
            recovers(
                18,
                f"{what} deleted: until it is there again",
                lambda: raw.get(f"{service}/"),
                1,
                time.monotonic(),
            )


def test_row_20_one_id_twice(etcd, service, raw):
    with EchoServer(register=service, identity="a", etcd=etcd, ttl_s=6) as first:
        before = raw.get(f"{service}/")
        began = time.monotonic()
        with pytest.raises(etcd_grpc.DuplicateInstanceError, match="'a' already"):
            etcd_grpc.register(service, port=free_port(), id="a", ttl_s=6, etcd=etcd)
        took_s = time.monotonic() - began
        assert raw.get(f"{service}/") == before
        assert first.process.poll() is None
        record(
            20, "one id twice: until the second is refused (TTL 6 s)", took_s, 6, "the first untouched"
        )
        first.kill()
        with etcd_grpc.register(service, port=free_port(), id="a", ttl_s=6, etcd=etcd, settle_s=0):
            assert len(raw.get(f"{service}/")) == 1


def test_row_21_restart_on_the_same_address(etcd, service, port, recovers):
    with contextlib.ExitStack() as stack:
        others = [
            stack.enter_context(EchoServer(register=service, etcd=etcd, ttl_s=30)) for _ in range(2)
        ]
        first = stack.enter_context(EchoServer(register=service, etcd=etcd, ttl_s=30, port=port))
        watcher = stack.enter_context(Watcher([etcd], service))
        load = stack.enter_context(Load(service, [etcd]))
        wait_until(lambda: len(load.answers) == 3, "all are called")
        first.kill()
        began = time.monotonic()
        again = stack.enter_context(EchoServer(register=service, etcd=etcd, ttl_s=30, port=port))
        load.failures.clear()  # those in flight on the killed one
        load.forget()
        recovers(
            21,
            "restart on the same address: until it is called again",
            lambda: load.answers[again.address],
            3,
            began,
        )
        assert len(watcher.view) == 3
        assert max(watcher.sizes) == 3, "never two entries"
        load.assert_clean()
        assert others


def test_row_34_fork_after_a_channel_and_a_registration_were_made(etcd, service, raw):
    code = f"""
        import os, sys, time
        from tests.support.processes import EchoServer
        import etcd_grpc

        with (
            EchoServer() as server,
            etcd_grpc.register({service!r}, address=server.address, ttl_s=6, settle_s=0) as mine,
            etcd_grpc.insecure_channel("etcd:///{service}") as channel,
        ):
            call = channel.unary_unary("/echo/UnaryUnary")
            call(b"x", timeout=10)
            child = os.fork()
            if child == 0:
                began = time.monotonic()
                answer = call(b"x", timeout=10)
                took_s = time.monotonic() - began
                assert not mine.registered
                try:
                    mine.update(weight=2)
                except etcd_grpc.ConfigurationError as error:
                    refused = "parent" in str(error)
                mine.close()  # does nothing here
                print(took_s < {allowed(1)}, refused, flush=True)
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
            time.sleep(8)  # longer than the lease without a beat
            assert mine.registered
            call(b"x", timeout=10)
        print("well")
    """
    assert run_python(code, etcd).splitlines() == ["True True", "well"]
    assert raw.get(f"{service}/") == {}


def test_entries_are_json_that_others_can_read(etcd, service, raw):
    """A key with a chosen id announces its address like any other."""
    with etcd_grpc.register(service, port=5000, id="a", etcd=etcd, settle_s=0):
        ((key, found),) = raw.get(f"{service}/").items()
        assert (key, json.loads(found.value)["Addr"]) == (f"{service}/a", "127.0.0.1:5000")
