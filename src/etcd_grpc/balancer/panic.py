"""When too few endpoints are left, use them all (Envoy's panic threshold).

Keeping calls away from bad endpoints helps as long as the good ones can take the load.  With most of
them out, either the good ones would be overrun next, or it is not the endpoints that are bad: the
judge is.  So under 50 % usable all are used, and it is said that they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

__all__ = ["PANIC_PERCENT", "too_few"]

T = TypeVar("T")

PANIC_PERCENT = 50.0  # Envoy's healthy_panic_threshold


def too_few(usable: Sequence[T], known: Sequence[T], percent: float = PANIC_PERCENT) -> bool:
    """Whether ``usable`` are fewer than ``percent`` of ``known``, or none."""
    return not usable or len(usable) * 100 < percent * len(known)
