"""Whose key it is: the table of ``ownership``, row by row, and the signs of life of a lease."""

from __future__ import annotations

import pytest

from etcd_grpc.ownership import Found, Holder, Life, Verdict, judge

OURS, OLD, THEIRS = 1, 2, 9
WANTED = b"wanted"


@pytest.mark.parametrize(
    ("found", "stood", "named", "verdict"),
    [
        (None, False, False, Verdict.PUT),
        (None, True, True, Verdict.PUT),
        (Found(WANTED, OURS, 5), True, False, Verdict.STANDS),
        (Found(b"older", OURS, 5), True, False, Verdict.PUT),
        (Found(WANTED, OLD, 5), True, True, Verdict.PUT),
        (Found(WANTED, 0, 5), True, True, Verdict.PUT),
        (Found(b"other", 0, 5), False, True, Verdict.PUT),
        (Found(b"other", THEIRS, 5), True, False, Verdict.YIELD),
        (Found(b"other", THEIRS, 5), True, True, Verdict.YIELD),
        (Found(WANTED, THEIRS, 5), True, False, Verdict.YIELD),
        (Found(b"other", THEIRS, 5), False, False, Verdict.PUT),
        (Found(b"other", THEIRS, 5), False, True, Verdict.CONTEST),
    ],
)
def test_table(found: Found | None, stood: bool, named: bool, verdict: Verdict) -> None:
    assert judge(found, WANTED, OURS, {OLD, OURS}, stood=stood, named=named) is verdict


def lives(ttl_s: int, remaining: list[tuple[float, int]]) -> list[Life]:
    holder = Holder()
    return [holder.observe(left, ttl_s, now) for now, left in remaining]


def test_lease_that_is_gone_has_nobody() -> None:
    assert lives(10, [(0.0, -1)]) == [Life.GONE]


def test_remaining_time_that_rises_is_a_sign_of_life() -> None:
    assert lives(9, [(0.0, 7), (1.0, 6), (1.5, 8)]) == [Life.UNKNOWN, Life.UNKNOWN, Life.ALIVE]


def test_remaining_time_that_only_falls_ends_below_what_a_living_process_lets_it_come_to() -> None:
    found = lives(9, [(float(t), 8 - t) for t in range(6)])
    assert found == [Life.UNKNOWN] * 5 + [Life.GONE]


@pytest.mark.parametrize("ttl_s", [1, 2, 3, 5, 10, 60, 3600])
@pytest.mark.parametrize("beat_delay_s", [0.0, 0.5])
def test_process_that_beats_is_never_taken_for_dead(ttl_s: int, beat_delay_s: float) -> None:
    holder = Holder()
    beat_every = ttl_s / 3 + beat_delay_s
    seen = set()
    for step in range(int(2 * ttl_s / 0.3) + 2):
        now = step * 0.3
        remaining = ttl_s - now % beat_every
        seen.add(holder.observe(int(remaining), ttl_s, now))
    assert Life.GONE not in seen
    if ttl_s >= 10:
        assert Life.ALIVE in seen


@pytest.mark.parametrize("ttl_s", [3, 5, 10, 60])
def test_dead_process_is_known_to_be_dead_after_little_more_than_a_third(ttl_s: int) -> None:
    holder = Holder()
    now = 0.0
    while holder.observe(int(ttl_s - now) if now < ttl_s else -1, ttl_s, now) is not Life.GONE:
        now += 0.3
    assert now <= ttl_s / 3 + 2.5
