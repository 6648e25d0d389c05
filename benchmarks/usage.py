"""What the kernel says of this process, and how late an event loop is."""

from __future__ import annotations

import asyncio
import gc
import statistics
from collections.abc import Sequence
from pathlib import Path

__all__ = ["late", "percentile_ms", "rss_mb"]

_LOOK_EVERY_S = 0.005


def rss_mb() -> float:
    """Resident memory now, after a garbage collection, in MB."""
    gc.collect()
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("the kernel tells no VmRSS")


async def late(into: list[float]) -> None:
    """Note every 5 ms by how many seconds the running loop is late; ends by being cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + _LOOK_EVERY_S
        await asyncio.sleep(_LOOK_EVERY_S)
        into.append(max(0.0, loop.time() - due))


def percentile_ms(seconds: Sequence[float], percent: int) -> float:
    """A percentile in milliseconds."""
    return round(statistics.quantiles(seconds, n=100, method="inclusive")[percent - 1] * 1000, 2)
