"""A lasting failure is told at first, then now and then, and its end with how long it took."""

from __future__ import annotations

from etcd_grpc.outage import REMIND_S, Outage


def test_first_failure_is_told() -> None:
    assert Outage().failed(100.0)


def test_first_failure_is_told_whatever_the_clock_says() -> None:
    assert Outage().failed(0.0)


def test_failures_that_follow_are_told_once_in_a_while() -> None:
    outage = Outage()
    told = [second for second in range(100) if outage.failed(1000.0 + second)]
    assert told == [0, REMIND_S, 2 * REMIND_S, 3 * REMIND_S]


def test_failures_that_come_seldom_are_all_told() -> None:
    outage = Outage()
    assert all(outage.failed(now) for now in (0.0, REMIND_S, 5 * REMIND_S))


def test_end_is_told_once_with_how_long_it_took() -> None:
    outage = Outage()
    for now in (100.0, 110.0, 140.0):
        outage.failed(now)
    assert outage.worked(142.5) == 42.5
    assert outage.worked(143.0) is None


def test_what_never_failed_has_no_end() -> None:
    assert Outage().worked(100.0) is None


def test_outages_that_follow_closely_are_told_once() -> None:
    outage = Outage()
    assert outage.failed(100.0)
    assert outage.told
    outage.worked(101.0)
    assert not outage.failed(102.0)
    assert not outage.told
    assert outage.worked(104.0) == 2.0
    assert outage.failed(100.0 + REMIND_S)
    assert outage.told


def test_it_is_broken_from_a_failure_until_it_works() -> None:
    outage = Outage()
    assert not outage.broken
    outage.failed(100.0)
    assert outage.broken
    outage.worked(101.0)
    assert not outage.broken
