"""Our channels weigh endpoints by the load reports in their answers, and only where the policy does."""

from __future__ import annotations

import asyncio
import collections
import json
from collections.abc import Iterator

import grpc
import pytest
from tests.integration.test_load_reports import running
from tests.support.waiting import wait_until

import etcd_grpc
from etcd_grpc.shared_config import config_key

WEIGHTED = [{"weighted_round_robin": {"blackoutPeriod": "0.1s", "weightUpdatePeriod": "0.1s"}}]


@pytest.fixture
def pair(announce) -> Iterator[tuple[str, str]]:
    """Two servers whose capacities are as 4 to 1."""
    with running("sync", "--capacity", "4000") as large, running("aio", "--capacity", "1000") as small:
        announce(large)
        announce(small)
        yield large, small


def quotient(answers: list[bytes], pair: tuple[str, str]) -> float:
    peers = collections.Counter(answer.split()[1].decode() for answer in answers)
    return peers[pair[0]] / max(1, peers[pair[1]])


def test_shares_follow_what_servers_report(etcd, service, pair):
    with etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd, policy=WEIGHTED) as channel:
        call = channel.unary_unary("/load/plain")

        def shares() -> float:
            return quotient([call(b"", timeout=20) for _ in range(500)], pair)

        wait_until(lambda: 3.5 < shares() < 4.5, "shares are as the capacities", 60)
        assert all(
            s.stats.report for s in channel._dispatcher._running.subchannels.subchannels.values()
        )


async def test_asyncio_shares_follow_what_servers_report(etcd, service, pair):
    async with etcd_grpc.aio.insecure_channel(
        f"etcd:///{service}", etcd=etcd, policy=WEIGHTED
    ) as channel:
        call = channel.unary_unary("/load/plain")

        async def shares() -> float:
            return quotient([await call(b"", timeout=20) for _ in range(500)], pair)

        async with asyncio.timeout(60):
            while not 3.5 < await shares() < 4.5:
                pass


def reports(channel: grpc.Channel) -> list[object]:
    return [s.stats.report for s in channel._dispatcher._running.subchannels.subchannels.values()]


@pytest.mark.parametrize("how", ["with_call", "future", "failure", "stream"])
def test_every_kind_of_call_brings_reports(etcd, service, pair, how):
    with etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd, policy=WEIGHTED) as channel:

        def once() -> None:
            match how:
                case "with_call":
                    channel.unary_unary("/load/plain").with_call(b"x", timeout=20)
                case "future":
                    channel.unary_unary("/load/plain").future(b"x", timeout=20).result()
                case "failure":
                    with pytest.raises(grpc.RpcError):
                        channel.unary_unary("/load/aborts")(b"NOT_FOUND", timeout=20)
                case "stream":
                    assert list(channel.unary_stream("/load/streams")(b"x", timeout=20))

        wait_until(lambda: [once(), all(reports(channel))][1], "reports", 30)


def test_reports_are_read_only_while_the_policy_weighs_by_them(etcd, service, pair, raw):
    key = config_key(service).decode()
    with etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel:
        call = channel.unary_unary("/load/plain")
        for _ in range(100):
            call(b"", timeout=20)
        assert not any(reports(channel))
        raw.put(key, json.dumps({"loadBalancingConfig": WEIGHTED}))
        try:
            wait_until(lambda: [call(b"", timeout=20), all(reports(channel))][1], "reports", 30)
        finally:
            raw.delete(key)
