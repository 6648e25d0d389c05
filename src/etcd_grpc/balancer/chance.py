"""Drawing at random in proportion to weights: in constant time while they are alike, else in log n."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import TypeVar

from etcd_grpc.balancer.turns import alike

__all__ = ["drawer"]

T = TypeVar("T")


def drawer(
    members: Sequence[T], weights: Sequence[float], random: Callable[[], float]
) -> Callable[[], T]:
    """A function that draws one of ``members``, with replacement.

    Args:
        members: Not empty.
        weights: Of each, above 0.
        random: Uniform in [0, 1); one atomic step, as ``random.Random.random`` is.
    """
    fixed = tuple(members)
    count = len(fixed)
    if alike(weights):

        def even() -> T:
            return fixed[int(random() * count)]

        return even
    ends = list(itertools.accumulate(weights))
    total = ends.pop()  # the last end is not needed: a product rounded up cannot pass the last member

    def weighted() -> T:
        return fixed[bisect_right(ends, random() * total)]

    return weighted
