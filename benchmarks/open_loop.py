"""Calls at moments that were fixed before: an open loop, which a slow server does not slow down.

A client that waits for one answer before it sends the next request stops asking just when it would be
waiting, and so never sees the worst ("coordinated omission").  Here every call has a moment at which it
is due, and its latency counts from there, whether or not it could be sent at that moment.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

import grpc

__all__ = ["Call", "even", "play", "poisson"]


class Call(NamedTuple):
    """One call that has ended."""

    due_s: float  # since the beginning
    latency_s: float  # since it was due
    failure: str  # its status code; empty: it was answered


def poisson(rate: float, seconds: float, seed: int) -> list[float]:
    """When calls arrive that know nothing of each other, ``rate`` a second; the same for each seed."""
    rng = random.Random(seed)
    arrivals: list[float] = []
    at = rng.expovariate(rate)
    while at < seconds:
        arrivals.append(at)
        at += rng.expovariate(rate)
    return arrivals


def even(rate: float, seconds: float) -> list[float]:
    """When calls arrive that come at even distances."""
    return [number / rate for number in range(int(rate * seconds))]


async def play(call: Callable[[], Awaitable[object]], arrivals: Sequence[float]) -> list[Call]:
    """Make a call at each moment of ``arrivals``; return when all have ended."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    ended: list[Call] = []

    async def one(due_s: float) -> None:
        failure = ""
        try:
            await call()
        except grpc.RpcError as error:
            failure = error.code().name
        ended.append(Call(due_s, loop.time() - began - due_s, failure))

    async with asyncio.TaskGroup() as group:
        for due_s in arrivals:
            if (early_s := due_s - (loop.time() - began)) > 0:
                await asyncio.sleep(early_s)
            group.create_task(one(due_s))
    return ended
