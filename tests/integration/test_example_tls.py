"""examples/tls, from the certificates to a rotation while it runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.test_cli import COMMAND
from tests.support.waiting import wait_until

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "tls"
CLIENT = "spiffe://example.org/greeter-client"
GREETING = f"Hello, etcd of {CLIENT}!"


class Program:
    """One of the example's programs, in a folder with certificates."""

    def __init__(self, name: str, etcd: str, folder: Path, label: str, *arguments: str) -> None:
        self.output = folder / f"{name}-{label}.out"
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, str(FOLDER / f"{name}.py"), *arguments],
                cwd=folder,
                env={**os.environ, "ETCDCTL_ENDPOINTS": etcd},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def lines(self, part: str) -> list[str]:
        return [line for line in self.output.read_text().splitlines() if part in line]

    def waits(self, part: str, times: int = 1) -> None:
        wait_until(lambda: len(self.lines(part)) >= times, f"{part!r} in {self.output}", 30)

    def end(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=30)


def certify(folder: Path, *, client: str = CLIENT) -> None:
    """What server.py says."""
    command = [COMMAND, "dev-ca", "certs", "--name", "helloworld.Greeter", "--spiffe", client]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=60)


@pytest.fixture
def programs(etcd: str, tmp_path: Path) -> Iterator[list[Program]]:
    certify(tmp_path)
    made = [Program("server", etcd, tmp_path, str(number)) for number in range(2)]
    try:
        for server in made:
            server.waits("is registered")
        yield made
    finally:
        for program in made:
            program.end()


def test_the_example_runs_through_a_rotation(programs, etcd, tmp_path):
    client = Program("client", etcd, tmp_path, "known", "--interval", "0.01")
    programs.append(client)
    client.waits(GREETING, 20)
    certify(tmp_path)
    for program in programs:
        program.waits("was replaced, and is in use")
    client.waits(GREETING, len(client.lines(GREETING)) + 100)
    assert client.process.poll() is None, client.output.read_text()
    assert client.end() == 0
    assert not client.lines("Error")
    for server in programs[:2]:
        assert server.end() == 0, server.output.read_text()


def test_another_client_is_refused_by_name(programs, etcd, tmp_path):
    certify(tmp_path, client="spiffe://example.org/somebody-else")
    client = Program("client", etcd, tmp_path, "unknown", "--calls", "1")
    assert client.process.wait(timeout=30) == 1
    (refusal,) = client.lines("details = ")
    assert "SayHello is not permitted to spiffe://example.org/somebody-else" in refusal
