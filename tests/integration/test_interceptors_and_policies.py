"""Asyncio interceptors stand around balancing: policies see what they change; they see no retry."""

from __future__ import annotations

import grpc
from tests.support.calls import who
from tests.support.scripted import connected
from tests.support.waiting import until

import etcd_grpc


class Tag(grpc.aio.UnaryUnaryClientInterceptor):
    """Gives every call a key for the ring."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.calls = 0

    async def intercept_unary_unary(self, continuation, client_call_details, request):
        self.calls += 1
        client_call_details.metadata["user"] = self.key
        return await continuation(client_call_details, request)


async def test_metadata_that_an_interceptor_adds_reaches_the_picker(etcd, service, echoes, announce):
    for echo in echoes:
        announce(echo.address)
    policy = {"ring_hash": {"requestHashHeader": "user"}}
    chosen: dict[str, str] = {}
    tag = Tag("")
    async with etcd_grpc.aio.insecure_channel(
        f"etcd:///{service}", etcd=etcd, policy=policy, interceptors=[tag]
    ) as channel:
        channel.get_state(try_to_connect=True)
        await until(connected(channel, 3), "all connected")
        call = channel.unary_unary("/echo/UnaryUnary")
        for key in map(str, range(30)):
            tag.key = key
            answers = {who(await call(b"x", timeout=10, wait_for_ready=True)) for _ in range(4)}
            assert len(answers) == 1, "a key's calls go to one endpoint"
            chosen[key] = answers.pop()
    assert len(set(chosen.values())) > 1


async def test_an_interceptor_runs_once_for_a_call_that_is_sent_again(etcd, service, echoes, announce):
    for echo in echoes:
        announce(echo.address)
    seen: list[grpc.StatusCode] = []

    class Count(grpc.aio.UnaryUnaryClientInterceptor):
        async def intercept_unary_unary(self, continuation, client_call_details, request):
            call = await continuation(client_call_details, request)
            seen.append(await call.code())
            return call

    retry = {
        "maxAttempts": 3,
        "initialBackoff": "0.01s",
        "maxBackoff": "0.1s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["ABORTED"],
    }
    async with etcd_grpc.aio.insecure_channel(
        f"etcd:///{service}",
        etcd=etcd,
        service_config={"methodConfig": [{"name": [{}], "retryPolicy": retry}]},
        interceptors=[Count()],
    ) as channel:
        call = channel.unary_unary("/echo/Abort")(b"ABORTED again", timeout=10)
        assert await call.code() is grpc.StatusCode.ABORTED
        explained = channel.explain()
        assert explained is not None
        assert sum(endpoint.picks for endpoint in explained.endpoints) == 3
    assert seen == [grpc.StatusCode.ABORTED]
