"""``etcd-grpc serve``, and ``serve(workers=...)`` in programs, as processes."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.support.calls import free_port
from tests.support.etcd import RawEtcd
from tests.support.family import APP, COMMAND, ROOT, alive, family
from tests.support.waiting import wait_until

import etcd_grpc
from etcd_grpc.testing import Process

READY = r"serving .* at (\S+) \(instance"


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, "serve", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def start(*arguments: str) -> Process:
    return Process([COMMAND, "serve", *arguments], cwd=ROOT, ready=READY, timeout_s=60)


@pytest.fixture
def caller(etcd: str, service: str) -> Iterator[Any]:
    """A call that says which process answered."""
    with etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel:
        call: Any = channel.unary_unary("/echo/UnaryUnary")

        def who() -> str:
            answer: bytes = call(b"", timeout=20, wait_for_ready=True)
            return answer.split()[0].decode()

        yield who


def test_one_process_serves_registers_and_drains(etcd, service, caller):
    with RawEtcd(etcd) as raw:
        told = ("--zone", "a", "--version", "v2", "--weight", "2", "--metadata", "shard=7")
        with start(APP, "-s", service, "-p", "0", "--etcd", etcd, *told) as process:
            assert caller() == str(process.pid)
            (entry,) = raw.get(f"{service}/").values()
            for part in (b'"zone":"a"', b'"version":"v2"', b'"weight":2', b'"shard":7'):
                assert part in entry.value
            assert process.terminate() == 0
            assert "draining" in process.output
        assert raw.get(f"{service}/") == {}


@pytest.mark.parametrize(
    "application",
    [
        ("tests.support.worker_app:add_async_servicers",),
        ("tests.support.worker_app:add_coroutines", "--aio"),
    ],
)
@pytest.mark.parametrize("workers", [1, 2])
def test_asyncio_is_served_as_such(etcd, service, caller, application, workers):
    app, *aio = application
    if workers == 1:
        with start(app, *aio, "-s", service, "-p", "0", "--etcd", etcd) as process:
            assert caller() == str(process.pid)
    else:
        with family(service, etcd, 2, "-p", "0", *aio, app=app) as made:
            wanted = {str(pid) for pid in made.workers.values()}
            wait_until(lambda: {caller() for _ in range(4)} == wanted, "both answer", 30)


def test_workers_listen_on_ports_in_a_row(etcd, service, caller):
    port = free_port(in_a_row=2)
    with family(service, etcd, 2, "-p", str(port), "--id", "a") as made:
        assert {address for *_, address in made.served} == {
            f"127.0.0.1:{port}",
            f"127.0.0.1:{port + 1}",
        }
        with RawEtcd(etcd) as raw:
            assert set(raw.get(f"{service}/")) == {f"{service}/a-0", f"{service}/a-1"}
        made.roll()
        with RawEtcd(etcd) as raw:
            assert set(raw.get(f"{service}/")) == {f"{service}/a-0", f"{service}/a-1"}


def test_workers_that_share_a_port_are_all_reached(etcd, service):
    with family(service, etcd, 2, "-p", "0", "--shared-port") as made:
        (address,) = {address for *_, address in made.served}

        def who() -> str:
            options = (("grpc.use_local_subchannel_pool", 1),)  # a connection of its own
            with grpc.insecure_channel(address, options) as channel:
                return channel.unary_unary("/echo/UnaryUnary")(b"", timeout=20).split()[1].decode()

        wait_until(lambda: {who() for _ in range(10)} == {"0", "1"}, "both are reached", 30)


@pytest.mark.parametrize(
    ("application", "said"),
    [
        ("no_such_module:add", "there is no module no_such_module"),
        ("tests.support.worker_app:nothing", "tests.support.worker_app has no nothing"),
        ("tests.support.worker_app:NOT_A_FUNCTION", "is int, and must be a function"),
        ("tests.support.worker_app", "write package.module:add_servicers"),
    ],
)
@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_application_that_cannot_be_imported_is_one_message(etcd, application, said, workers):
    done = run(application, "-s", "s", "-p", "0", "--etcd", etcd, "-w", workers, "-q")
    assert done.returncode == 1
    told = done.stderr.splitlines()
    assert said in told[-1]
    assert told[-1].startswith("etcd-grpc: ")
    assert len([line for line in told if said in line]) <= 2  # as a worker's end, and as ours
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("more", [("-w", "1"), ("-w", "2"), ("-w", "2", "--shared-port")])
def test_a_port_that_is_taken_is_said_to_be(etcd, service, more):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        done = run(APP, "-s", service, "-p", port, "--etcd", etcd, *more)
    assert done.returncode == 1
    assert re.search(rf"cannot listen on 127\.0\.0\.1:{port}", done.stderr.splitlines()[-1])
    assert "Traceback" not in done.stderr
    with RawEtcd(etcd) as raw:
        assert raw.get(f"{service}/") == {}


def test_an_etcd_that_does_not_answer_is_said_to_be_unreachable(service):
    nobody = f"127.0.0.1:{free_port()}"
    done = run(APP, "-s", service, "-p", "0", "--etcd", nobody, "--timeout", "0.2", "-w", "2")
    assert done.returncode == 1
    assert nobody in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--tls-cert", __file__), "both --tls-cert and --tls-key"),
        (("--metadata", "x"), "--metadata 'x' is not KEY=VALUE"),
        (("-p", "65535", "-w", "2"), "would need port 65536"),
        (("--grace", "0.1"), "grace_s is 0.1"),
    ],
)
def test_options_that_contradict_each_other_are_one_message(etcd, arguments, said):
    done = run(APP, "-s", "s", "--etcd", etcd, *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


# Programs that call serve(workers=...).


def program(folder: Path, body: str) -> Path:
    path = folder / "program.py"
    path.write_text(
        "import asyncio, logging, sys\n"
        "import etcd_grpc\n"
        "from tests.support import worker_app\n"
        "def add(server):\n"
        "    worker_app.add_servicers(server)\n"
        "async def add_async(server):\n"
        "    await worker_app.add_async_servicers(server)\n"
        "SETTINGS = dict(service=sys.argv[1], etcd=sys.argv[2], workers=2)\n" + textwrap.dedent(body)
    )
    return path


def command(path: Path, service: str, etcd: str) -> list[str | Path]:
    return [sys.executable, path, service, etcd]


ENVIRONMENT = {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}


@pytest.mark.parametrize(
    "call",
    ["etcd_grpc.serve(add, **SETTINGS)", "asyncio.run(etcd_grpc.aio.serve(add_async, **SETTINGS))"],
)
def test_a_program_serves_with_workers(etcd, service, caller, tmp_path, call):
    path = program(
        tmp_path,
        f"""
        if __name__ == "__main__":
            logging.basicConfig(level=logging.INFO)
            {call}
            print("ended well")
        """,
    )
    with Process(
        command(path, service, etcd), env=ENVIRONMENT, ready=r"worker 1 .* serves at", timeout_s=60
    ) as process:
        wait_until(lambda: len({caller() for _ in range(4)}) == 2, "two processes answer", 30)
        os.kill(process.pid, signal.SIGHUP)
        wait_until(lambda: "all workers are replaced" in process.output, "they are replaced", 60)
        pids = {int(caller()) for _ in range(4)}
        assert process.terminate() == 0
        assert process.output.splitlines()[-1] == "ended well"
        wait_until(lambda: not any(map(alive, pids)), "no worker is left")


def test_a_program_that_is_not_guarded_is_told_to_be(etcd, service, tmp_path):
    path = program(tmp_path, "etcd_grpc.serve(add, **SETTINGS)")
    done = subprocess.run(
        command(path, service, etcd),
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert 'if __name__ == "__main__":' in done.stderr.splitlines()[-1]


def test_when_serve_is_cancelled_the_workers_leave(etcd, service, tmp_path):
    path = program(
        tmp_path,
        """
        async def main():
            task = asyncio.create_task(etcd_grpc.aio.serve(add_async, **SETTINGS))
            await asyncio.to_thread(sys.stdin.readline)
            task.cancel()
            await asyncio.wait({task})
            print("cancelled", task.cancelled())

        if __name__ == "__main__":
            logging.basicConfig(level=logging.INFO, stream=sys.stdout)
            asyncio.run(main())
        """,
    )
    with subprocess.Popen(
        command(path, service, etcd),
        env={**os.environ, **ENVIRONMENT},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(2)]
        assert all("serves at" in line for line in said), said
        pids = [int(re.findall(r"process (\d+)", line)[0]) for line in said]
        out, _ = process.communicate("\n", timeout=60)
        assert out.splitlines()[-1] == "cancelled True"
        assert process.returncode == 0
        assert not any(map(alive, pids))
    with RawEtcd(etcd) as raw:
        assert raw.get(f"{service}/") == {}
