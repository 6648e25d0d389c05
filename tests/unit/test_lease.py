"""The lease machine: when to grant, when to beat, and that only etcd says when it is over."""

from __future__ import annotations

import pytest

from etcd_grpc.etcd.lease import Grant, KeepAlive, LeaseMachine, Wait


def held(ttl_s: int = 9, asked_at: float = 100.0) -> LeaseMachine:
    machine = LeaseMachine(ttl_s)
    machine.granted(42, ttl_s, asked_at)
    return machine


def test_first_action_is_to_grant() -> None:
    machine = LeaseMachine(10)
    assert machine.next_action(0.0) == Grant(10)
    assert not machine.held
    assert machine.generation == 0


def test_grant_is_asked_for_until_it_is_answered() -> None:
    machine = LeaseMachine(10)
    assert machine.next_action(5.0) == machine.next_action(6.0) == Grant(10)


def test_granted_lease_is_held() -> None:
    machine = held()
    assert machine.held
    assert (machine.lease_id, machine.generation) == (42, 1)
    assert machine.expires_at == 109.0


def test_beat_comes_a_third_of_the_ttl_after_the_request_left() -> None:
    machine = held(ttl_s=9, asked_at=100.0)
    assert machine.next_action(100.0) == Wait(103.0)
    assert machine.next_action(102.9) == Wait(103.0)
    assert machine.next_action(103.0) == KeepAlive(42)


def test_ttl_that_etcd_grants_counts_not_the_one_asked_for() -> None:
    machine = LeaseMachine(1)
    machine.granted(42, 6, 100.0)
    assert machine.next_action(100.0) == Wait(102.0)
    assert machine.expires_at == 106.0


def test_beat_that_is_answered_moves_the_next_one() -> None:
    machine = held(ttl_s=9, asked_at=100.0)
    machine.kept(9, 103.0)
    assert machine.next_action(104.0) == Wait(106.0)
    assert machine.expires_at == 112.0
    assert machine.generation == 1


def test_lease_with_a_second_left_is_held() -> None:
    machine = held()
    machine.kept(1, 103.0)
    assert machine.held
    assert machine.expires_at == 104.0


def test_late_clock_proves_nothing() -> None:
    """etcd extends every lease when a leader is elected: ask, do not grant."""
    machine = held(ttl_s=9, asked_at=100.0)
    assert machine.next_action(100_000.0) == KeepAlive(42)
    machine.kept(9, 100_000.0)
    assert machine.held
    assert machine.generation == 1


@pytest.mark.parametrize("ttl_s", [0, -1])
def test_lease_that_etcd_has_forgotten_is_granted_anew_at_once(ttl_s: int) -> None:
    machine = held()
    machine.kept(ttl_s, 103.0)
    assert not machine.held
    assert machine.next_action(0.0) == Grant(9)


def test_lost_lease_is_granted_anew_at_once() -> None:
    machine = held()
    machine.lost()
    assert not machine.held
    assert machine.next_action(100.1) == Grant(9)


def test_loss_ends_the_wait_after_a_failure() -> None:
    machine = held()
    machine.failed(103.0, 60.0)
    machine.lost()
    assert machine.next_action(103.1) == Grant(9)


def test_generation_counts_grants() -> None:
    machine = held()
    machine.lost()
    assert machine.generation == 1
    machine.granted(43, 9, 110.0)
    assert (machine.generation, machine.lease_id) == (2, 43)


def test_failed_grant_is_repeated_after_the_delay() -> None:
    machine = LeaseMachine(10)
    machine.failed(5.0, 0.5)
    assert machine.next_action(5.4) == Wait(5.5)
    assert machine.next_action(5.5) == Grant(10)


def test_failed_beat_is_repeated_after_the_delay_and_the_lease_stays_held() -> None:
    machine = held()
    machine.failed(103.0, 0.5)
    assert machine.held
    assert machine.next_action(103.2) == Wait(103.5)
    assert machine.next_action(103.5) == KeepAlive(42)


def test_failure_without_delay_is_repeated_at_once() -> None:
    machine = held()
    machine.failed(103.0, 0.0)
    assert machine.next_action(103.0) == KeepAlive(42)
