"""Every policy carries calls through real channels of both worlds."""

from __future__ import annotations

import grpc
import pytest
from tests.support.calls import who
from tests.support.waiting import wait_until

import etcd_grpc

ALL, ONE, TWO = 3, 1, 2
POLICIES = [
    ({"pick_first": {}}, ONE),
    ({"random": {}}, ALL),
    ({"weighted_round_robin": {}}, ALL),
    ({"least_request": {}}, ALL),
    ({"ring_hash": {}}, ALL),
    ({"outlier_detection": {"childPolicy": [{"least_request": {"load": "peak_ewma"}}]}}, ALL),
    ({"subset": {"subsetSize": 2}}, TWO),
    ({"zone_aware": {"zone": "a"}}, ALL),
    ({"slow_start": {}}, ALL),
    ({"canary": {"match": {"version": "v2"}, "percent": 5}}, ALL),
    ({"filter": {"match": {"version": "v2"}, "fallback": True}}, ALL),
]


@pytest.fixture(params=POLICIES, ids=lambda param: next(iter(param[0])))
def config(request, echoes, announce):
    """A service config, and how many of the three servers are called with it."""
    policy, used = request.param
    for echo in echoes:
        announce(echo.address)
    return {"loadBalancingConfig": [policy]}, used


def test_calls_go_through_a_synchronous_channel(etcd, service, config):
    policy, used = config
    with etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd, service_config=policy) as channel:
        call = channel.unary_unary("/echo/UnaryUnary")

        def servers() -> set[str]:
            return {who(call(b"x", timeout=5)) for _ in range(100)}

        wait_until(lambda: len(servers()) == used, "as many servers are called as the policy uses")


async def test_calls_go_through_an_asyncio_channel(etcd, service, config):
    policy, used = config
    target = f"etcd:///{service}"
    async with etcd_grpc.aio.insecure_channel(target, etcd=etcd, service_config=policy) as channel:
        call = channel.unary_unary("/echo/UnaryUnary")
        served = {who(await call(b"x", timeout=5)) for _ in range(100)}
    assert 1 <= len(served) <= used


def test_call_that_no_endpoint_may_get_fails_at_once_and_says_why(etcd, service, echoes, announce):
    announce(echoes[0].address)
    policy = {"loadBalancingConfig": [{"filter": {"match": {"version": "v9"}}}]}
    with etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd, service_config=policy) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/echo/UnaryUnary")(b"x", timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "the policy (filter > round_robin) leaves out all 1" in caught.value.details()
