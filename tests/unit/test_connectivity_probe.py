"""The one place that reaches into grpcio: it works on the grpcio that is installed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from tests.support.threads import no_thread_begins

from etcd_grpc.channel.connectivity import READY, probe_of, state_of

IDLE: int = grpc.ChannelConnectivity.IDLE.value[0]
OPTIONS = [("grpc.use_local_subchannel_pool", 1)]


@pytest.fixture
def port() -> Iterator[int]:
    """Where a server without any service listens."""
    server = grpc.server(ThreadPoolExecutor(1), options=[("grpc.so_reuseport", 0)])
    bound = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield bound
    server.stop(None).wait(10)


@pytest.mark.parametrize("state", grpc.ChannelConnectivity)
def test_every_state_has_its_number(state: grpc.ChannelConnectivity) -> None:
    assert state_of(state.value[0]) is state


def test_synchronous_channel_is_asked_without_connecting_it(port: int) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{port}", OPTIONS) as channel:
        probe = probe_of(channel)
        assert [probe(False) for _ in range(3)] == [IDLE] * 3


def test_synchronous_channel_is_asked_and_connected(port: int) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{port}", OPTIONS) as channel:
        probe = probe_of(channel)
        probe(True)
        grpc.channel_ready_future(channel).result(timeout=10)
        assert probe(False) == READY
        assert state_of(probe(False)) is grpc.ChannelConnectivity.READY


async def test_asyncio_channel_is_asked_without_connecting_it(port: int) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", OPTIONS) as channel:
        probe = probe_of(channel)
        assert [probe(False) for _ in range(3)] == [IDLE] * 3


async def test_asyncio_channel_is_asked_and_connected(port: int) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", OPTIONS) as channel:
        probe = probe_of(channel)
        probe(True)
        async with asyncio.timeout(10):
            await channel.channel_ready()
        assert probe(False) == READY


def test_probe_agrees_with_what_subscribers_are_told(port: int) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{port}", OPTIONS) as channel:
        ready = threading.Event()

        def told(state: grpc.ChannelConnectivity) -> None:
            if state is grpc.ChannelConnectivity.READY:
                ready.set()

        channel.subscribe(told, try_to_connect=True)
        assert ready.wait(10)
        channel.unsubscribe(told)
        assert probe_of(channel)(False) == READY


def test_asking_many_channels_starts_no_thread() -> None:
    channels = [grpc.insecure_channel("127.0.0.1:1", OPTIONS) for _ in range(50)]
    with no_thread_begins():
        states = [probe_of(channel)(False) for channel in channels]
    assert states == [IDLE] * 50
    for channel in channels:
        channel.close()
