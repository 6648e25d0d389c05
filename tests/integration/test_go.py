"""Go programs and ours share a registry: they by etcd's own naming package, nothing adapted to us."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest
from tests.support.load import Load
from tests.support.processes import EchoServer
from tests.support.serving import ServeServer
from tests.support.waiting import wait_until

import etcd_grpc

pytestmark = pytest.mark.timeout(600)  # the first of them builds the Go program

SOURCE = Path(__file__).parent.parent / "support" / "interop"


@pytest.fixture(scope="session")
def go(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The Go program, built once for all processes of the test run."""
    compiler = shutil.which("go")
    if compiler is None:
        pytest.skip("go is not on the PATH")
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # that of all workers
    program = folder / "interop"
    with (folder / "interop.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            fetched = in_go(compiler, "mod", "download")
            if fetched.returncode:
                pytest.skip(f"Go's modules cannot be fetched: {fetched.stderr.strip()[-200:]}")
            built = in_go(compiler, "build", "-o", str(program), ".")
            assert built.returncode == 0, built.stderr
    return str(program)


def in_go(*command: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"CGO_ENABLED": "0"}
    return subprocess.run(
        command, cwd=SOURCE, env=environment, capture_output=True, text=True, check=False
    )


class Program:
    """One run of the Go program; ``told`` is the last line that it has printed."""

    def __init__(self, *command: str) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by __exit__
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True
        )
        self.told: dict[str, Any] = {}
        self._reader = threading.Thread(target=self._read, name="go")
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.told = json.loads(line)

    def terminate(self) -> None:
        self._process.send_signal(signal.SIGTERM)

    def finish(self) -> dict[str, Any]:
        """End its standard input, wait for its end; returns what it said last."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        status = self._process.wait(30)
        self._reader.join(30)
        self._errors.seek(0)
        assert status == 0, self._errors.read()
        return self.told

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        with self._process, self._errors:
            self._process.wait(30)
        self._reader.join(30)


@pytest.fixture
def run(go, etcd, service) -> Iterator[Callable[..., Program]]:
    with contextlib.ExitStack() as stack:
        yield lambda what, *more: stack.enter_context(Program(go, what, etcd, service, *more))


def test_a_go_client_finds_our_servers_and_loses_no_call_while_they_come_and_go(run, etcd, service):
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(ServeServer(service, etcd=etcd, settle_s=0.5)) for _ in range(2)]
        caller = run("call")
        wait_until(lambda: len(caller.told.get("answers", ())) == 2, "both are called", 30)
        servers.append(stack.enter_context(ServeServer(service, etcd=etcd, settle_s=0.5)))
        wait_until(lambda: servers[2].address in caller.told["answers"], "the new one is called", 30)
        servers[0].terminate()
        assert servers[0].wait(30) == 0
        before = caller.told["answers"].copy()
        wait_until(
            lambda: all(caller.told["answers"][s.address] > before[s.address] for s in servers[1:]),
            "the others go on",
        )
        told = caller.finish()
        assert told["failures"] == {}
        assert set(told["answers"]) == {server.address for server in servers}


def test_our_channel_finds_go_servers_and_loses_no_call_when_one_leaves(run, etcd, service):
    metadata = json.dumps({"zone": "a", "weight": 3, "version": "v1"})
    servers = [run("serve", metadata), run("serve")]
    wait_until(lambda: all(server.told for server in servers), "they are registered", 30)
    addresses = [server.told["ready"] for server in servers]
    with Load(service, [etcd]) as load:
        wait_until(lambda: set(load.answers) == set(addresses), "both are called", 30)
        rows = {row.address: row for row in load.channel.explain().endpoints}
        assert (rows[addresses[0]].zone, rows[addresses[0]].weight) == ("a", 3)
        assert (rows[addresses[1]].zone, rows[addresses[1]].weight) == ("", 1)
        servers[0].terminate()
        servers[0].finish()
        before = load.answers[addresses[1]]
        wait_until(lambda: load.answers[addresses[1]] > before + 100, "the other one goes on")
        load.assert_clean()


def test_go_lists_what_we_register_with_its_metadata(run, etcd, service):
    with etcd_grpc.register(
        service, port=5000, zone="z", weight=2, metadata={"k": [1]}, etcd=etcd, settle_s=0
    ):
        told = run("list").finish()
    (endpoint,) = told.values()
    assert list(told) == [f"{service}/127.0.0.1:5000"]
    assert endpoint["Addr"] == "127.0.0.1:5000"
    assert endpoint["Metadata"]["zone"] == "z"
    assert endpoint["Metadata"]["weight"] == 2
    assert endpoint["Metadata"]["metadata"] == {"k": [1]}


def test_both_kinds_serve_side_by_side(run, etcd, service):
    with EchoServer(register=service, etcd=etcd) as python:
        golang = run("serve")
        wait_until(lambda: golang.told, "it is registered", 30)
        both = {python.address, golang.told["ready"]}
        caller = run("call")
        wait_until(lambda: set(caller.told.get("answers", ())) == both, "Go calls both", 30)
        with etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel:
            call = channel.unary_unary("/echo/UnaryUnary")
            wait_until(
                lambda: {call(b"x", timeout=10).split()[0].decode() for _ in range(2)} == both,
                "we call both, in turn",
            )
        assert caller.finish()["failures"] == {}
