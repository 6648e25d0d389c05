"""Row 26: a server that is gone without a word, while its connections seem to stand.

To a proxy's peer the kernel still acknowledges what it gets.  So the host itself has to vanish: in a
network namespace of its own an address is taken away, and what was connected to it goes nowhere.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from tests.support.processes import EchoServer
from tests.support.report import record

import etcd_grpc
from etcd_grpc.testing import Cluster, Proxy

ROOT = Path(__file__).parent.parent.parent
GONE = "10.77.77.77"
IN_NAMESPACE = ["unshare", "--map-root-user", "--net", "sh", "-c"]
SETUP = f"ip link set lo up && ip addr add {GONE}/32 dev lo"
TCP_USER_TIMEOUT = 18


def can_make_namespaces() -> bool:
    if not (shutil.which("unshare") and shutil.which("ip")):
        return False
    done = subprocess.run([*IN_NAMESPACE, SETUP], capture_output=True, check=False, timeout=20)
    return done.returncode == 0


@pytest.fixture(scope="module")
def etcd() -> Iterator[str]:
    with Cluster(1) as cluster:
        yield cluster.endpoints[0]


@pytest.mark.skipif(not can_make_namespaces(), reason="network namespaces are not allowed here")
@pytest.mark.timeout(150)
def test_row_26_half_open_connection(service):
    code = f"""
        import contextlib, subprocess, threading, time
        from tests.support.calls import RETRY
        from tests.support.load import Load
        from tests.support.processes import EchoServer
        from tests.support.waiting import wait_until
        from etcd_grpc.devcluster import Cluster

        def row(load, address):
            return next(r for r in load.channel.explain().endpoints if r.address == address)

        with contextlib.ExitStack() as stack:
            etcd = stack.enter_context(Cluster(1)).endpoints[0]
            how = dict(register={service!r}, etcd=etcd, ttl_s=60)
            calls = dict(threads=8, timeout_s=30, service_config=RETRY)
            others = [stack.enter_context(EchoServer(**how)) for _ in range(2)]
            gone = stack.enter_context(EchoServer(host={GONE!r}, **how))
            load = stack.enter_context(Load({service!r}, [etcd], **calls))
            wait_until(lambda: len(load.answers) == 3, "all are called")
            subprocess.run(["ip", "addr", "del", "{GONE}/32", "dev", "lo"], check=True)
            began = time.monotonic()
            wait_until(lambda: row(load, gone.address).state != "READY", "noticed", 45)
            took_s = time.monotonic() - began
            load.forget()
            wait_until(lambda: load.answers.total() > 100, "whoever had picked it has gone elsewhere")
            picks = row(load, gone.address).picks
            load.forget()
            wait_until(lambda: load.answers.total() > 100, "the others are called")
            load.assert_clean()
            assert row(load, gone.address).picks == picks, "picked no more"
            assert gone.process.poll() is None, "it lives, out of reach"
            print("took", took_s)
    """
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}/src:{ROOT}"}
    done = subprocess.run(
        [*IN_NAMESPACE, f'{SETUP} && exec "$0" -c "$1"', sys.executable, textwrap.dedent(code)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=140,
    )
    assert done.returncode == 0, done.stderr
    took_s = float(done.stdout.split()[-1])
    record(26, "half-open connection: until it is closed", took_s, 15, "no call failed")
    assert took_s < 15 * 3


def user_timeouts(port: int) -> list[int]:
    """TCP_USER_TIMEOUT of this process's connections to ``port``, in ms."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            if not str(entry.readlink()).startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(entry.name))) as known:
                if known.family in (socket.AF_INET, socket.AF_INET6) and known.getpeername()[1] == port:
                    found.append(known.getsockopt(socket.IPPROTO_TCP, TCP_USER_TIMEOUT))
        except OSError:  # not connected, or closed meanwhile
            continue
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="TCP_USER_TIMEOUT is Linux's")
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), 10_000),
        ((("grpc.keepalive_timeout_ms", 3000),), 3000),
        ((("grpc.keepalive_time_ms", 2**31 - 1),), 0),
    ],
)
def test_unacknowledged_data_closes_a_connection_unless_the_user_says_otherwise(
    etcd, service, options, expected
):
    with (
        EchoServer(register=service, etcd=etcd) as server,
        etcd_grpc.insecure_channel(f"etcd:///{service}", options, etcd=etcd) as channel,
    ):
        channel.unary_unary("/echo/UnaryUnary")(b"x", timeout=10)
        assert user_timeouts(server.port) == [expected]


def test_row_26_with_pings_a_silent_connection_is_closed(etcd, service, recovers):
    """For servers that permit pings: the connection is acknowledged by a kernel, and by nobody else."""
    options = [("grpc.keepalive_time_ms", 10_000), ("grpc.http2.ping_timeout_ms", 2000)]
    with (
        EchoServer() as server,
        Proxy(server.address) as network,
        etcd_grpc.register(service, address=network.address, etcd=etcd, settle_s=0),
        etcd_grpc.insecure_channel(f"etcd:///{service}", options, etcd=etcd) as channel,
    ):
        call = channel.unary_unary("/echo/UnaryUnary")
        call(b"x", timeout=10)
        network.half_open()
        ended = threading.Event()
        pending = call.future(b"x", timeout=60)
        pending.add_done_callback(lambda _: ended.set())
        began = time.monotonic()
        recovers(
            26, "silent connection, with pings every 10 s: until it is closed", ended.is_set, 15, began
        )
        assert pending.code() is grpc.StatusCode.UNAVAILABLE
