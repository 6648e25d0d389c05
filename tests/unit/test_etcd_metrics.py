"""Rates from counters that are read now and then, and that begin anew with the process."""

from __future__ import annotations

import pytest
from benchmarks.etcd_metrics import Sample, peak, rates


def samples(*points: tuple[float, int]) -> list[Sample]:
    return [Sample(at, {}, {"Range": n // 2, "Txn": n - n // 2}) for at, n in points]


def test_the_peak_is_that_of_the_busiest_window() -> None:
    assert peak(samples((0, 0), (0.05, 3), (0.1, 5), (0.15, 45), (0.2, 50), (0.3, 51)), 0.1) == 45


def test_a_window_that_is_longer_than_asked_for_is_scaled() -> None:
    assert peak(samples((0, 0), (0.4, 80)), 0.1) == pytest.approx(20)


def test_a_new_process_begins_at_nothing() -> None:
    assert peak(samples((0, 1000), (3, 30), (3.1, 70)), 0.1) == pytest.approx(40)


def test_without_a_whole_window_there_is_no_rate() -> None:
    assert rates(samples((0, 0), (0.05, 9)), 0.1) == []
    assert peak([], 0.1) == 0
