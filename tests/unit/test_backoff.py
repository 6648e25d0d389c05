"""Delays between attempts: free ones first, then exponential, jittered, capped, without end."""

from __future__ import annotations

import random

import pytest

from etcd_grpc.etcd.backoff import Backoff


class _Middle(random.Random):
    """No jitter: the middle of every range."""

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


class _Edge(random.Random):
    """The jitter's end: the lowest or the highest value of every range."""

    def __init__(self, *, high: bool) -> None:
        super().__init__(0)
        self._high = high

    def uniform(self, a: float, b: float) -> float:
        return b if self._high else a


def delays(backoff: Backoff, count: int) -> list[float]:
    return [backoff.next_delay() for _ in range(count)]


def test_first_attempt_after_a_success_comes_at_once_then_delays_grow() -> None:
    backoff = Backoff(_Middle(), initial_s=1.0, max_s=100.0)
    assert delays(backoff, 5) == pytest.approx([0.0, 1.0, 1.6, 2.56, 4.096])


@pytest.mark.parametrize("free", [0, 1, 3])
def test_free_attempts_come_at_once(free: int) -> None:
    backoff = Backoff(_Middle(), initial_s=1.0, max_s=100.0, free=free)
    assert delays(backoff, free + 1) == [0.0] * free + [1.0]


def test_delay_is_capped() -> None:
    assert delays(Backoff(_Middle(), initial_s=1.0, max_s=2.0), 10)[-1] == 2.0


def test_initial_delay_above_the_cap_is_capped() -> None:
    assert delays(Backoff(_Middle(), initial_s=5.0, max_s=2.0, free=0), 1) == [2.0]


@pytest.mark.parametrize(("high", "factor"), [(False, 0.5), (True, 1.5)])
def test_jitter_is_a_half_either_way(high: bool, factor: float) -> None:
    backoff = Backoff(_Edge(high=high), initial_s=1.0, max_s=2.0, free=0)
    assert delays(backoff, 3) == pytest.approx([factor, 1.6 * factor, 2.0 * factor])


def test_reset_makes_the_next_failure_the_first_again() -> None:
    backoff = Backoff(_Middle(), initial_s=1.0)
    delays(backoff, 7)
    backoff.reset()
    assert delays(backoff, 2) == [0.0, 1.0]


def test_months_of_failures_do_not_overflow() -> None:
    backoff = Backoff(_Middle(), initial_s=1.0, max_s=2.0)
    assert delays(backoff, 20_000)[-1] == 2.0


def test_clients_that_fail_together_come_back_apart() -> None:
    clients = [Backoff(random.Random(seed), free=0, initial_s=1.0) for seed in range(100)]
    assert len({client.next_delay() for client in clients}) == 100
