"""How long to wait before the next attempt: exponential, jittered, never giving up.  Pure.

The first attempts after a success come at once, since another member will mostly do.  After them all
clients of a broken etcd are in step, and must not come back in step: so every wait is jittered by
±50 %, which spreads them over the whole of a second within a few attempts (the factor is that of gRPC's
connection backoff; its ±20 % would keep them together for a minute).  The cap is a second, so that
everybody is back within two of etcd's return.
"""

from __future__ import annotations

import random

__all__ = ["Backoff"]


class Backoff:
    """Delays between attempts, in seconds.

    Args:
        rng: The source of jitter.
        initial_s: The first wait after the free attempts.
        max_s: No wait is longer, jitter aside.
        free: How many attempts in a row come at once (mostly the number of members).
    """

    FACTOR = 1.6
    JITTER = 0.5

    def __init__(
        self, rng: random.Random, *, initial_s: float = 0.05, max_s: float = 1.0, free: int = 1
    ) -> None:
        self._rng = rng
        self._initial_s = initial_s
        self._max_s = max_s
        self._free = free
        self._failures = 0

    def next_delay(self) -> float:
        """Count one failure; return how long to wait before trying again."""
        self._failures += 1
        steps = self._failures - self._free - 1
        if steps < 0:
            return 0.0
        # The exponent is bounded so that it cannot overflow after months of failures.
        delay = min(self._max_s, self._initial_s * self.FACTOR ** min(steps, 64))
        return delay * self._rng.uniform(1 - self.JITTER, 1 + self.JITTER)

    def reset(self) -> None:
        """Something worked: the next failure is the first again."""
        self._failures = 0
