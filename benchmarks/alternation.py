"""Comparing two things on a machine that has other things to do.

What is compared takes short turns, A B, B A, A B and so on: a disturbance that lasts longer than a turn
meets both of a pair alike and so leaves their ratio alone, and neither profits from coming first.  A
disturbance that meets only one makes that pair an outlier, which a median does not notice.
"""

from __future__ import annotations

import contextlib
import gc
import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field

__all__ = ["MIN_PAIRS", "Pairs", "without_gc"]

MIN_PAIRS = 7


@dataclass(slots=True)
class Pairs:
    """What A and B cost, pair by pair, in microseconds a call."""

    a_us: list[float] = field(default_factory=list)
    b_us: list[float] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.a_us)

    def add(self, a_us: float, b_us: float) -> None:
        """One more pair."""
        self.a_us.append(a_us)
        self.b_us.append(b_us)

    def ratio(self) -> float:
        """The median of A / B."""
        return statistics.median(self.ratios())

    def interval(self) -> tuple[float, float]:
        """Where the true median lies, with a confidence of 95 %.

        The order statistics at n/2 ± 0.98·sqrt(n) (the binomial's normal approximation): it asks
        nothing of the distribution.  With few pairs it is their whole range.
        """
        ratios = self.ratios()
        skipped = max(0, math.floor((len(ratios) - 1.96 * math.sqrt(len(ratios))) / 2))
        return ratios[skipped], ratios[-1 - skipped]

    def medians_us(self) -> tuple[float, float]:
        """The medians of A and of B."""
        return statistics.median(self.a_us), statistics.median(self.b_us)

    def ratios(self) -> list[float]:
        """A / B of each pair, the lowest first."""
        return sorted(a / b for a, b in zip(self.a_us, self.b_us, strict=True))


@contextlib.contextmanager
def without_gc() -> Iterator[None]:
    """No garbage collection within the block: it would meet now one, now the other."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
