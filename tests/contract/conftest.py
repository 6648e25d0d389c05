"""Each test runs over a plain channel and over balanced ones, through the same assertions."""

from __future__ import annotations

import contextlib
import itertools
import json
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import grpc
import pytest
import trustme
from tests.integration.conftest import _no_thread_left, etcd
from tests.support.contract import CALLS, CHANNELS, ContractServer, World
from tests.support.etcd import RawEtcd

__all__ = ["_no_thread_left", "etcd"]

Place = Callable[[str, Sequence[str]], World]


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the servers' certificate, its key and the authority that signed it."""
    folder = tmp_path_factory.mktemp("tls")
    signer = trustme.CA()
    leaf = signer.issue_cert("127.0.0.1")
    signer.cert_pem.write_to_path(folder / "ca.pem")
    leaf.private_key_pem.write_to_path(folder / "key.pem")
    leaf.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    return folder


@pytest.fixture(scope="session")
def servers(authority: Path) -> Iterator[list[ContractServer]]:
    tls = ("--certificate", str(authority / "cert.pem"), "--key", str(authority / "key.pem"))
    with contextlib.ExitStack() as stack:
        started = [stack.enter_context(ContractServer(*tls)) for _ in range(3)]
        yield [server.ready() for server in started]


@pytest.fixture(scope="session")
def place(etcd: str) -> Iterator[Place]:
    """A world of the given kind at the given addresses, whoever listens there."""
    with RawEtcd(etcd) as raw:

        def make(kind: str, addresses: Sequence[str]) -> World:
            shape = kind.removesuffix("-cold")
            if shape == "plain":
                return World(kind, addresses[0], None)
            service = f"contract.{uuid.uuid4().hex[:12]}"
            for address in addresses:
                raw.put(f"{service}/{address}", json.dumps({"Op": 0, "Addr": address}))
            return World(kind, f"etcd:///{service}", etcd)

        yield make


@pytest.fixture(scope="session")
def worlds(place: Place, servers: list[ContractServer]) -> dict[str, World]:
    made = {}
    for kind in CALLS:
        used = servers if kind.startswith("three") else servers[:1]
        made[kind] = World(kind, *_where(place(kind, [server.address for server in used])), tuple(used))
    return made


@pytest.fixture(scope="session")
def tls_worlds(place: Place, servers: list[ContractServer]) -> dict[str, World]:
    """The same, behind TLS."""
    made = {}
    for kind in CHANNELS:
        used = servers if kind == "three" else servers[:1]
        made[kind] = World(
            kind, *_where(place(kind, [server.tls_address for server in used])), tuple(used)
        )
    return made


def _where(world: World) -> tuple[str, str | None]:
    return world.target, world.etcd


@pytest.fixture(scope="session")
def _warm(worlds: dict[str, World]) -> Iterator[dict[str, grpc.Channel]]:
    """Connected channels that all tests of calls share; nobody closes them."""
    with contextlib.ExitStack() as stack:
        channels = {
            k: stack.enter_context(worlds[k].channel()) for k in (*CHANNELS, "hedged", "retrying")
        }
        for channel in channels.values():
            grpc.channel_ready_future(channel).result(timeout=20)
        yield channels


@pytest.fixture(params=CHANNELS)
def world(request: pytest.FixtureRequest, worlds: dict[str, World]) -> World:
    """For tests that make channels of their own."""
    chosen: World = worlds[request.param]
    return chosen


@pytest.fixture(params=CHANNELS)
def tls_world(request: pytest.FixtureRequest, tls_worlds: dict[str, World]) -> World:
    chosen: World = tls_worlds[request.param]
    return chosen


@pytest.fixture(params=CALLS)
def _called(request: pytest.FixtureRequest, worlds: dict[str, World]) -> World:
    chosen: World = worlds[request.param]
    return chosen


@pytest.fixture
def events(_called: World) -> Callable[[str], list[str]]:
    """What has happened to a hanging call on the servers behind ``channel``."""
    return _called.events


@pytest.fixture
def release(_called: World) -> Callable[[str], None]:
    """Lets a held call end, on the servers behind ``channel``."""
    return _called.release


@pytest.fixture
def channel(_called: World, _warm: dict[str, grpc.Channel]) -> Iterator[grpc.Channel]:
    """A synchronous channel, for tests of calls."""
    if _called.cold:
        with _called.channel() as fresh:
            yield fresh
    else:
        yield _warm[_called.kind]


@pytest.fixture
async def achannel(_called: World, _warm: dict[str, grpc.Channel]) -> AsyncIterator[grpc.aio.Channel]:
    """An asyncio channel, for tests of calls."""
    async with _called.aio_channel() as fresh:
        if not _called.cold:
            await fresh.channel_ready()
        yield fresh


@pytest.fixture
def name() -> str:
    """A name for a hanging or held call that no other test uses."""
    return f"call-{next(_numbers)}"


_numbers = itertools.count()
