"""``least_request``: draw a few endpoints, take the one with the least load (gRFC A48).

The power of two choices (Mitzenmacher, 2001): to compare two drawn at random brings the longest queue
from log n / log log n down to log log n, nearly as good as to compare all, at constant cost, and
without the herd that follows when many clients choose the same best endpoint.

Draws are with replacement and only a strictly lower load wins, as A48 says.  What the load is stands
in ``load.py``: calls in flight (A48), or with ``"load": "peak_ewma"`` also how slow the endpoint is.

Weights, which A48 does not have: an endpoint is drawn in proportion to its weight, and its calls in
flight are counted for each unit of weight.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, ClassVar, Generic, Literal, TypeVar

import msgspec

from etcd_grpc.balancer.base import Call, Candidate, Picker, Setup
from etcd_grpc.balancer.chance import drawer
from etcd_grpc.balancer.load import LOADS, Load, Stats

__all__ = ["LeastRequest", "LeastRequestSettings"]

C = TypeVar("C", bound=Candidate)
T = TypeVar("T")

_MAX_CHOICES = 10  # gRFC A48: higher values count as 10


class LeastRequestSettings(msgspec.Struct, frozen=True, rename="camel"):
    """``choiceCount``: how many are compared.  ``load``: what is compared."""

    choice_count: Annotated[int, msgspec.Meta(ge=2)] = 2
    load: Literal["in_flight", "peak_ewma"] = "in_flight"

    wants_call: ClassVar[bool] = False
    heeds_weights: ClassVar[bool] = True

    @property
    def wants_outcomes(self) -> bool:
        """Only a load that knows round-trip times does."""
        return self.load == "peak_ewma"

    def build(self, setup: Setup) -> LeastRequest:
        """A new policy."""
        return LeastRequest(self, setup)


class LeastRequest:
    """The policy.

    Args:
        settings: Its settings.
        setup: Its ``rng`` draws, its ``clock`` dates round-trip times.
    """

    def __init__(self, settings: LeastRequestSettings, setup: Setup) -> None:
        self._choices = min(settings.choice_count, _MAX_CHOICES)
        self._load = LOADS[settings.load](setup.clock)
        self._random = setup.rng.random

    def picker(self, candidates: Sequence[C], weights: Sequence[float]) -> Picker[C]:
        entries = [(c, c.stats, weight) for c, weight in zip(candidates, weights, strict=True)]
        return _Picker(drawer(entries, weights, self._random), self._load, self._choices, len(entries))


class _Picker(Generic[T]):
    __slots__ = ("_draw", "_load", "_others", "_size")

    def __init__(
        self, draw: Callable[[], tuple[T, Stats, float]], load: Load, choices: int, size: int
    ) -> None:
        self._draw = draw
        self._load = load
        self._others = range(choices - 1)
        self._size = size

    def pick(self, call: Call | None = None) -> T:  # noqa: ARG002
        draw, load = self._draw, self._load
        best = draw()
        least = -1.0  # not yet known
        for _ in self._others:
            other = draw()
            if other is best:  # drawn again: nothing to compare
                continue
            if least < 0.0:
                least = load(best[1], best[2])
            if (less := load(other[1], other[2])) < least:
                best, least = other, less
        return best[0]

    def __len__(self) -> int:
        return self._size
