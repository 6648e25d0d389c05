"""The programs of docs/serving.md do what the page says."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.waiting import wait_until

import etcd_grpc

ROOT = Path(__file__).parents[2]
SERVICE = "helloworld.Greeter"
# Who runs tests in the background may have it ignored, and children inherit that.
INTERRUPTIBLE = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"


@pytest.fixture
def programs(monkeypatch) -> list[str]:
    monkeypatch.syspath_prepend(str(ROOT / "examples/greeter"))
    text = (ROOT / "docs/serving.md").read_text("utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@contextlib.contextmanager
def running(program: str, etcd: str) -> Iterator[subprocess.Popen[str]]:
    environment = {
        **os.environ,
        "ETCDCTL_ENDPOINTS": etcd,
        "PYTHONPATH": str(ROOT / "examples/greeter"),
    }
    process = subprocess.Popen(
        [sys.executable, "-c", program], env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        print(process.communicate()[1])


def say_hello(etcd: str) -> str:
    import helloworld_pb2
    import helloworld_pb2_grpc

    with etcd_grpc.insecure_channel(f"etcd:///{SERVICE}", etcd=etcd) as channel:
        stub = helloworld_pb2_grpc.GreeterStub(channel)
        request = helloworld_pb2.HelloRequest(name="you")
        return stub.SayHello(request, timeout=30, wait_for_ready=True).message


def test_serve_answers_and_leaves(etcd, raw, programs):
    with running(programs[0].replace("port=50051", "port=0"), etcd) as process:
        assert say_hello(etcd) == "Hello, you!"
        process.terminate()
        assert process.wait(30) == 0
    assert raw.get(f"{SERVICE}/") == {}


def test_lifecycle_answers_and_leaves(etcd, raw, programs):
    servicer = programs[0].partition("etcd_grpc.serve(")[0]
    (own,) = [program for program in programs if "etcd_grpc.Lifecycle(" in program]
    with running(INTERRUPTIBLE + servicer + own, etcd) as process:
        assert say_hello(etcd) == "Hello, you!"
        wait_until(lambda: raw.get(f"{SERVICE}/"), "registered")
        process.send_signal(signal.SIGINT)
        process.wait(30)
    assert raw.get(f"{SERVICE}/") == {}
