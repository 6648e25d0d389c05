"""``random``: shares in proportion to weights, on average."""

from __future__ import annotations

import pytest
from tests.support.balancing import Set, balancer, shares


@pytest.mark.parametrize(
    "weights", [{"a": 1, "b": 1, "c": 1}, {"a": 1, "b": 2, "c": 5}, {"a": 0.01, "b": 100, "c": 1}]
)
def test_shares_follow_weights(weights: dict[str, float]) -> None:
    found = shares(balancer("random").picker(Set().weighted(weights)), 50_000)
    total = sum(weights.values())
    for name, weight in weights.items():
        assert found.get(name, 0) == pytest.approx(weight / total, abs=0.01)
