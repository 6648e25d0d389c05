"""When a policy decides anew: at its own time, soon after it was asked, not too often."""

from __future__ import annotations

import asyncio

from etcd_grpc.channel.ticker import Ticker


class Policy:
    """Notes when it decided; wants to be woken at ``due``."""

    def __init__(self) -> None:
        self.ticks: list[float] = []
        self.due: float | None = None
        self.interval_s = 0.0
        self.loop = asyncio.get_running_loop()
        self.ticker = Ticker(self.loop, self._tick, lambda: self.due, lambda: self.interval_s)

    def _tick(self) -> None:
        self.ticks.append(self.loop.time())
        self.due = None

    async def after(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.ticks) < count:
                await asyncio.sleep(0.001)


async def test_it_is_woken_when_it_wants_to() -> None:
    policy = Policy()
    policy.due = due = policy.loop.time() + 0.01
    policy.ticker.wait()
    await policy.after(1)
    assert policy.ticks[0] > due - 0.001, "not before; by the loop's resolution it may be a little less"


async def test_many_calls_share_one_tick() -> None:
    policy = Policy()
    for _ in range(100):
        policy.ticker.soon()
    await policy.after(1)
    await asyncio.sleep(0.01)
    assert len(policy.ticks) == 1


async def test_a_large_set_decides_at_intervals() -> None:
    policy = Policy()
    policy.interval_s = 0.05
    began = policy.loop.time()
    policy.ticker.soon()
    await policy.after(1)
    policy.ticker.soon()
    await policy.after(2)
    assert policy.ticks[1] - began >= 0.05


async def test_waiting_does_not_postpone_what_was_asked_for() -> None:
    policy = Policy()
    policy.ticker.soon()
    policy.due = policy.loop.time() + 60
    policy.ticker.wait()
    await policy.after(1)


async def test_after_the_end_it_is_not_woken() -> None:
    policy = Policy()
    policy.due = policy.loop.time() + 0.005
    policy.ticker.wait()
    policy.ticker.close()
    await asyncio.sleep(0.02)
    assert not policy.ticks
