"""The set of subchannels between two looks at a connection: what comes and goes there is not missed.

Found by the soak test: one call in a thousand waited a second, or until its deadline, beside a
connected endpoint.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import cast

import grpc
import pytest

from etcd_grpc.balancer.balancer import Balancer
from etcd_grpc.balancer.policies import parse_policy
from etcd_grpc.balancer.stats_table import StatsTable
from etcd_grpc.channel.backlog import SLICE_S
from etcd_grpc.channel.connectivity import READY
from etcd_grpc.channel.identity_check import Answer
from etcd_grpc.channel.subchannel_set import SubchannelSet
from etcd_grpc.channel.ways import Way, Ways
from etcd_grpc.model import Endpoint, Put, Remove

IDLE: int = grpc.ChannelConnectivity.IDLE.value[0]
FAILURE: int = grpc.ChannelConnectivity.TRANSIENT_FAILURE.value[0]
CONNECTING: int = grpc.ChannelConnectivity.CONNECTING.value[0]
SOON_S = 10.0


@pytest.fixture(autouse=True)
def _no_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    """What looks at everything once a second does not help, and nobody loses patience."""
    monkeypatch.setattr("etcd_grpc.channel.subchannel_set._SWEEP_S", 3600.0)
    monkeypatch.setattr("etcd_grpc.channel.rivals._PATIENCE_S", 3600.0)


class Connection:
    """Stands for a real channel: in ``script``'s states one after another, then in ``state``."""

    def __init__(self) -> None:
        self.state = CONNECTING
        self.script: list[int] = []
        self._channel = self  # where ``probe_of`` looks

    def check_connectivity_state(self, connect: bool) -> int:
        return self.script.pop(0) if self.script else self.state


class Connector:
    def __init__(self) -> None:
        self.connection = Connection()

    def connect(self, address: str, way: Way) -> grpc.Channel:
        return cast("grpc.Channel", self.connection)

    def ask(self, channel: grpc.Channel, answered: Callable[[Answer], None]) -> None:
        raise AssertionError("no endpoint of these tests tells who it is")

    def close(self, channel: grpc.Channel) -> None:
        pass


async def until_picker(found: SubchannelSet[grpc.Channel], there: bool) -> None:
    async with asyncio.timeout(SOON_S):
        while (found.picker is not None) is not there:
            await asyncio.sleep(0)


async def lose(found: SubchannelSet[grpc.Channel], connection: Connection) -> None:
    """Connect the only endpoint, lose it, and be told so; it connects for the second time now."""
    found.update([Put(Endpoint("s/a", "127.0.0.1:1"))])
    connection.state = READY
    await until_picker(found, True)
    connection.state = IDLE
    found.report(*found.subchannels.values())
    await until_picker(found, False)


async def test_an_endpoint_found_connected_by_a_report_gets_calls_again() -> None:
    connector = Connector()
    found = subchannels(connector)
    try:
        await lose(found, connector.connection)
        connector.connection.state = READY  # and a report, not the poll, is the first to see it
        found.report(*found.subchannels.values())
        await until_picker(found, True)
    finally:
        found.close()


async def test_an_endpoint_lost_between_the_poll_and_the_picker_is_looked_after() -> None:
    connector = Connector()
    found = subchannels(connector)
    try:
        await lose(found, connector.connection)
        connector.connection.script = [READY, IDLE]  # what the poll sees, and then the picker
        connector.connection.state = READY
        await until_picker(found, True)
    finally:
        found.close()


class NamedConnector(Connector):
    """Another connection for each name under which there is to be one."""

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[str, Connection] = {}

    def connect(self, address: str, way: Way) -> grpc.Channel:
        self.made[way.name] = Connection()
        return cast("grpc.Channel", self.made[way.name])


async def test_a_set_is_failing_when_the_last_way_has_failed_and_not_before() -> None:
    connector = NamedConnector()
    found = subchannels(connector, Ways(("greeter", "")))
    try:
        found.update([Put(Endpoint("s/a", "127.0.0.1:1"))])
        connector.made["greeter"].state = FAILURE
        async with asyncio.timeout(SOON_S):
            while "" not in connector.made:
                await asyncio.sleep(0)
            await asyncio.sleep(0.1)  # the point: longer than the first picker is waited for
        assert found.state.name == "CONNECTING"
        assert not list(found.failing())
        connector.made[""].state = FAILURE
        async with asyncio.timeout(SOON_S):
            while found.state.name != "TRANSIENT_FAILURE":
                await asyncio.sleep(0)
        assert list(found.failing()) == list(found.subchannels.values())
        connector.made[""].state = READY
        await until_picker(found, True)
    finally:
        found.close()


class SlowConnector(Connector):
    """Each channel takes longer to make than a slice of the loop's time."""

    def connect(self, address: str, way: Way) -> grpc.Channel:
        time.sleep(2 * SLICE_S)
        connection = Connection()
        connection.state = READY
        return cast("grpc.Channel", connection)


async def test_a_large_set_is_connected_in_slices_and_calls_need_not_wait_for_the_last() -> None:
    found = subchannels(SlowConnector())
    try:
        found.update([Put(Endpoint(f"s/{n}", "127.0.0.1:1")) for n in range(20)])
        assert len(found.subchannels) == 1
        assert found.left_out == 0
        async with asyncio.timeout(10):
            while found.picker is None:
                await asyncio.sleep(0)
            early = len(found.subchannels)
            found.update([Remove("s/19")])
            while len(found.subchannels) < 19:
                await asyncio.sleep(0)
        assert early < 19
        assert "s/19" not in found.subchannels
    finally:
        found.close()


def subchannels(connector: Connector, ways: Ways | None = None) -> SubchannelSet[grpc.Channel]:
    balancer = Balancer(parse_policy("round_robin"), random.Random(1), time.monotonic)
    stats = StatsTable(time.monotonic)
    loop, rng = asyncio.get_running_loop(), random.Random(1)
    return SubchannelSet(loop, connector, balancer, stats, lambda: None, ways or Ways(), rng)
