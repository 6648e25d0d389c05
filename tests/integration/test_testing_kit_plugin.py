"""The plugin's fixtures and processes, as a project of a user has them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from tests.support.processes import SERVER
from tests.support.waiting import wait_until

from etcd_grpc.processes import _janitor
from etcd_grpc.testing import Process, Proxy

READY = r"^ready (?P<address>\S+)$"

MODULE = """
from etcd_grpc.testing import Cluster

seen = []

def test_one_etcd(etcd):
    seen.append(etcd)

def test_for_all_tests(etcd):
    assert [etcd] == seen

def test_three_members_that_may_be_broken(etcd_cluster):
    assert isinstance(etcd_cluster, Cluster)
    assert len(etcd_cluster.endpoints) == 3
    old = etcd_cluster.leader()
    etcd_cluster.partition(old)
    assert etcd_cluster.leader() != old
    seen.append(etcd_cluster.endpoints)

def test_and_are_made_anew(etcd_cluster):
    assert etcd_cluster.endpoints not in seen
    etcd_cluster.wait_healthy()
"""


def test_fixtures_are_real_clusters(tmp_path: Path) -> None:
    (tmp_path / "test_module.py").write_text(MODULE)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "pytest_etcd_grpc", "-W", "error", tmp_path],
        cwd=tmp_path,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout


# Processes


@pytest.fixture
def server() -> Iterator[Process]:
    with Process([sys.executable, SERVER], ready=READY) as running:
        yield running


def echo(address: str, timeout_s: float = 20.0) -> bytes:
    with grpc.insecure_channel(address) as channel:
        return bytes(channel.unary_unary("/echo/UnaryUnary")(b"x", timeout=timeout_s))


def code_of(call: Callable[[], object]) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    code: grpc.StatusCode = caught.value.code()
    return code


def test_a_process_is_ready_when_it_has_said_so(server: Process) -> None:
    assert server.alive
    assert server.output == f"{server.match[0]}\n"
    assert echo(server.match["address"])


def test_a_paused_process_hangs_and_goes_on(server: Process) -> None:
    server.pause()
    address = server.match["address"]
    assert code_of(lambda: echo(address, 0.5)) is grpc.StatusCode.DEADLINE_EXCEEDED
    assert server.alive
    server.resume()
    assert echo(address)


def test_a_killed_process_starts_again(server: Process) -> None:
    old, pid = server.match["address"], server.pid
    server.kill()
    assert not server.alive
    assert code_of(lambda: echo(old)) is grpc.StatusCode.UNAVAILABLE
    server.start()
    assert server.pid != pid
    assert echo(server.match["address"])
    with pytest.raises(RuntimeError, match="runs already"):
        server.start()


def test_terminate_lets_it_end_by_itself(server: Process) -> None:
    assert server.terminate() == 0
    assert not server.alive


def test_what_was_paused_is_ended_too() -> None:
    with Process([sys.executable, SERVER], ready=READY) as server:
        server.pause()
        pid = server.pid
    assert _janitor.start_time(pid) == ""
    assert server.output == ""


def test_a_program_that_ends_before_it_is_ready_shows_what_it_said() -> None:
    script = "echo no such table; exit 3"
    with pytest.raises(RuntimeError, match=r"status 3 before it was ready:\nno such table"):
        Process(["sh", "-c", script], ready="never").__enter__()
    with pytest.raises(AssertionError, match=r"not within 0.2 s: sh is ready"):
        Process(["sh", "-c", "sleep 60"], ready="never", timeout_s=0.2).__enter__()
    with pytest.raises(FileNotFoundError, match="no-such-program"):
        Process(["no-such-program"]).__enter__()
    with pytest.raises(RuntimeError, match="not started"):
        Process(["true"]).kill()


def test_a_process_gets_its_variables_and_folder(tmp_path: Path) -> None:
    command = ["sh", "-c", 'echo "$COLOUR in $PWD"; exec sleep 60']
    with Process(command, ready="in (.*)", env={"COLOUR": "green"}, cwd=tmp_path) as process:
        assert process.output == f"green in {tmp_path}\n"
        assert process.match[1] == str(tmp_path)


def test_what_a_program_started_is_killed_with_it(tmp_path: Path) -> None:
    with Process(["sh", "-c", "sleep 60 & echo child $!; wait"], ready=r"child (\d+)") as process:
        child = int(process.match[1])
        process.kill()
        wait_until(lambda: not _janitor.start_time(child), "the child has ended", 30)


# What gRPC makes of a broken network


def test_a_grpc_channel_through_a_half_open_connection_hangs_and_comes_back(server: Process) -> None:
    with Proxy(server.match["address"]) as proxy, grpc.insecure_channel(proxy.address) as channel:
        call = channel.unary_unary("/echo/UnaryUnary")
        assert call(b"x", timeout=20)
        proxy.half_open()
        assert code_of(lambda: call(b"x", timeout=0.5)) is grpc.StatusCode.DEADLINE_EXCEEDED
        assert proxy.open_connections == 1
        proxy.mend()
        assert code_of(lambda: call(b"x", timeout=20)) is grpc.StatusCode.UNAVAILABLE
        assert call(b"x", timeout=20, wait_for_ready=True)


def test_a_sigkilled_test_process_leaves_neither_process_nor_port(tmp_path: Path) -> None:
    script = f"""
import signal
from etcd_grpc.testing import Process, Proxy
with Process([{sys.executable!r}, {str(SERVER)!r}], ready={READY!r}) as server:
    with Proxy(server.match["address"]) as proxy:
        print(server.pid, proxy.port, flush=True)
        signal.pause()
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid, port = map(int, parent.stdout.readline().split())
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    wait_until(lambda: not _janitor.start_time(pid), "the server has ended", 30)
    with socket.socket() as again:
        again.bind(("127.0.0.1", port))
