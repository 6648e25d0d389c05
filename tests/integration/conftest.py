"""Real etcd and real servers, one set for each test process."""

from __future__ import annotations

import contextlib
import json
import threading
import uuid
from collections.abc import Callable, Iterator

import pytest
from tests.support.etcd import RawEtcd
from tests.support.processes import EchoServer
from tests.support.waiting import wait_until

from etcd_grpc.devcluster import Cluster


@pytest.fixture(scope="session")
def etcd() -> Iterator[str]:
    """Endpoint of a one-member etcd that nobody breaks."""
    with Cluster(1) as cluster:
        yield cluster.endpoints[0]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A three-member etcd for one test, which may break it."""
    with Cluster(3) as cluster:
        yield cluster


@pytest.fixture
def raw(etcd: str) -> Iterator[RawEtcd]:
    with RawEtcd(etcd) as client:
        yield client


@pytest.fixture
def service() -> str:
    """A service name that no other test uses."""
    return f"test.{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="session")
def echoes() -> Iterator[list[EchoServer]]:
    """Three echo servers that are not registered and that nobody stops."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(EchoServer()) for _ in range(3)]


@pytest.fixture
def announce(raw: RawEtcd, service: str) -> Callable[[str], str]:
    """Write an address into etcd as a Go program would; returns the key."""

    def write(address: str) -> str:
        key = f"{service}/{address}"
        raw.put(key, json.dumps({"Op": 0, "Addr": address, "Metadata": None}))
        return key

    return write


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    """Close means closed: every test ends with the threads of ours that it began with."""

    def ours() -> set[threading.Thread]:
        return {t for t in threading.enumerate() if t.name.startswith("etcd-grpc")}

    before = ours()
    yield
    wait_until(
        lambda: not {t for t in ours() - before if t.name != "etcd-grpc-children"}, "threads ended", 30
    )
