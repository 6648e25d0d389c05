"""Row 46: 200 registrations and 200 channels start together while etcd is down, and it comes back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

import pytest
from benchmarks.etcd_metrics import Sampler, peak
from tests.faults.conftest import allowed
from tests.support.processes import EchoServer
from tests.support.report import record
from tests.support.waiting import until

import etcd_grpc
import etcd_grpc.aio
from etcd_grpc.devcluster import Cluster
from etcd_grpc.telemetry import events

STARTS = 200
OUTAGE_S = 4.0  # long enough for every backoff to reach its longest wait
BOUND_S = 5.0
PATIENCE_S = 30.0


class Starts:
    """As many instances, each of a service of its own and with a channel that calls it."""

    def __init__(self, stack: contextlib.AsyncExitStack, etcd: str, service: str, server: str) -> None:
        self._stack = stack
        self._etcd = etcd
        self._server = server
        self._services = [f"{service}.{number}" for number in range(STARTS)]

    async def all(self) -> None:
        """Start everything at this moment; return when all of it was done."""
        registrations = [self._register(name) for name in self._services]
        calls = [self._call(name) for name in self._services]
        await asyncio.gather(*registrations, *calls)

    async def _register(self, name: str) -> None:
        registration = etcd_grpc.aio.register(
            name, address=self._server, etcd=self._etcd, settle_s=0, timeout_s=PATIENCE_S
        )
        await self._stack.enter_async_context(registration)

    async def _call(self, name: str) -> None:
        channel = etcd_grpc.aio.insecure_channel(f"etcd:///{name}", etcd=self._etcd)
        await self._stack.enter_async_context(channel)
        call = channel.unary_unary("/echo/UnaryUnary")
        await call(b"x", timeout=PATIENCE_S, wait_for_ready=True)


def breaks(told: Sequence[etcd_grpc.Event]) -> int:
    """How often the stream broke after the outage, as where a machine stands still."""
    kinds = [type(event) for event in told]
    return kinds[kinds.index(events.Reconnected) :].count(events.Disconnected)


@pytest.mark.timeout(180)
async def test_everything_starts_after_an_outage_without_a_storm(service, told):
    with Cluster(1) as cluster, EchoServer() as server, Sampler(cluster.endpoints[0]) as sampler:
        cluster.kill(0)
        async with contextlib.AsyncExitStack() as stack:
            starts = Starts(stack, cluster.endpoints[0], service, server.address)
            done = asyncio.ensure_future(starts.all())
            await asyncio.sleep(OUTAGE_S)  # the fault itself
            assert not done.done()
            before = len(sampler.samples)
            await asyncio.to_thread(cluster.restart, 0)
            await done
            await until(
                lambda: len(sampler.samples) > before and sampler.samples[-1].watches >= STARTS,
                "all are followed",
                PATIENCE_S,
            )
            samples = sampler.samples[before:]
    last = samples[-1]
    took_s = last.at - samples[0].at
    most = peak(samples, 0.1)
    requests = {method: count for method, count in last.requests.items() if count}
    print(f"\nall there after {took_s:.2f} s; at most {most:.0f} requests in 100 ms; {requests}")
    note = f"at most {most:.0f} requests in 100 ms"
    record(46, "200 registrations and 200 channels start in an outage", took_s, BOUND_S, note)
    assert last.calls["Watch"] <= 1 + breaks(told), "one stream a process"
    assert took_s < allowed(BOUND_S)
    assert most < 2 * STARTS, "they come one after another"
    # Instances and service config are each listed and watched, and an instance is put.
    assert last.total < 2 * 5 * STARTS, "five requests a start: nobody asks again and again"
