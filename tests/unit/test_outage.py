"""When an outage is told."""

from __future__ import annotations

from etcd_grpc.etcd.outage import Outage


def test_the_first_failure_is_told_and_then_one_in_thirty_seconds() -> None:
    outage = Outage()
    told = [at for at in range(100) if outage.failed(at)]
    assert told == [0, 30, 60, 90]


def test_the_end_is_told_once_with_its_length() -> None:
    outage = Outage()
    assert outage.worked(5) is None
    outage.failed(10)
    outage.failed(11)
    assert outage.worked(14) == 4
    assert outage.worked(15) is None


def test_the_next_outage_is_told_at_once() -> None:
    outage = Outage()
    outage.failed(1)
    outage.worked(2)
    assert outage.failed(3)
