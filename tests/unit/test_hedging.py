"""When a call is hedged, and how it ends: gRFC A6."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from etcd_grpc.balancer.service_config import HedgingPolicy, Throttling
from etcd_grpc.channel.hedging import Hedging, Start, Step
from etcd_grpc.channel.retry import MAX_TRANSPARENT, Throttle

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
FATAL = grpc.StatusCode.INVALID_ARGUMENT


def hedging(
    attempts: int = 3,
    delay_s: float = 0.1,
    throttle: Throttle | None = None,
    deadline_s: float | None = None,
) -> Hedging:
    return Hedging(HedgingPolicy(attempts, delay_s, frozenset({UNAVAILABLE})), throttle, deadline_s)


def begun(now: float = 0.0, **settings: Any) -> Hedging:
    """The first attempt has left."""
    machine = hedging(**settings)
    assert machine.begin() == Step((Start(1, 0),))
    machine.started(1, now)
    return machine


def near(seconds: float) -> Any:
    return pytest.approx(seconds)


def failed(
    machine: Hedging,
    number: int,
    now: float,
    code: grpc.StatusCode = UNAVAILABLE,
    pushback_ms: int | None = None,
    *,
    unseen: bool = False,
) -> Step:
    return machine.failed(number, code, pushback_ms, now, unseen=unseen)


def test_hedges_follow_one_another_at_the_delay() -> None:
    machine = hedging()
    machine.begin()
    assert machine.started(1, 5.0) == Step(wake_s=5.1)
    assert machine.tick(5.05) == Step(wake_s=5.1)
    assert machine.tick(5.1) == Step((Start(2, 1),))
    assert machine.started(2, 5.15) == Step(wake_s=5.25)
    assert machine.tick(5.25) == Step((Start(3, 2),))
    assert machine.started(3, 5.3) == Step()
    assert machine.tick(99.0) == Step()


def test_without_a_delay_all_begin_at_once() -> None:
    machine = hedging(delay_s=0.0)
    machine.begin()
    assert machine.started(1, 0.0) == Step((Start(2, 1),))
    assert machine.started(2, 0.0) == Step((Start(3, 2),))
    assert machine.started(3, 0.0) == Step()


def test_time_counts_from_when_an_attempt_has_left() -> None:
    """A call that waits for its first endpoint is not hedged meanwhile."""
    machine = hedging()
    machine.begin()
    assert machine.tick(100.0) == Step()
    assert machine.started(1, 100.0) == Step(wake_s=100.1)


def test_first_answer_ends_the_call_and_the_others() -> None:
    machine = begun()
    machine.tick(0.1)
    machine.started(2, 0.1)
    assert machine.answered(2) == Step(final=2, cancel=(1,))
    assert failed(machine, 1, 0.2, grpc.StatusCode.CANCELLED) == Step()
    assert machine.tick(9.0) == Step()


def test_attempt_that_finds_its_endpoint_too_late_is_cancelled() -> None:
    machine = begun()
    machine.tick(0.1)
    machine.answered(1)
    assert machine.started(2, 0.2) == Step(cancel=(2,))


def test_fatal_code_ends_the_call_and_the_others() -> None:
    machine = begun()
    machine.tick(0.1)
    machine.started(2, 0.1)
    assert failed(machine, 1, 0.2, FATAL) == Step(final=1, cancel=(2,))


def test_other_failure_brings_the_next_attempt_at_once() -> None:
    machine = begun()
    assert failed(machine, 1, 0.02) == Step((Start(2, 1),))
    assert machine.started(2, 0.02) == Step(wake_s=near(0.12))


def test_when_all_have_failed_the_last_failure_stands() -> None:
    machine = begun(attempts=2)
    failed(machine, 1, 0.02)
    machine.started(2, 0.02)
    assert failed(machine, 2, 0.03) == Step(final=2)


def test_failure_waits_for_those_under_way() -> None:
    machine = begun(attempts=2)
    machine.tick(0.1)
    machine.started(2, 0.1)
    assert failed(machine, 2, 0.2) == Step()
    assert machine.answered(1) == Step(final=1)


def test_server_that_asks_for_no_more_gets_no_more() -> None:
    machine = begun()
    machine.tick(0.1)
    machine.started(2, 0.1)
    assert failed(machine, 1, 0.15, pushback_ms=-1) == Step()
    assert machine.tick(9.0) == Step()
    assert failed(machine, 2, 9.0) == Step(final=2)


def test_servers_wish_delays_the_next_attempt() -> None:
    machine = begun()
    assert failed(machine, 1, 0.02, pushback_ms=700) == Step(wake_s=near(0.72))
    assert machine.tick(0.7).starts == ()
    assert machine.tick(0.73) == Step((Start(2, 1),))
    assert machine.started(2, 0.73) == Step(wake_s=near(0.83))


def test_servers_wish_holds_when_another_attempt_fails() -> None:
    machine = begun()
    machine.tick(0.1)
    machine.started(2, 0.1)
    failed(machine, 1, 0.15, pushback_ms=1000)
    assert failed(machine, 2, 0.2) == Step(wake_s=near(1.15))


def test_wish_beyond_the_deadline_ends_the_call() -> None:
    machine = begun(deadline_s=1.0)
    assert failed(machine, 1, 0.5, pushback_ms=600) == Step(final=1)


def test_no_attempt_begins_after_the_deadline() -> None:
    machine = begun(deadline_s=1.0, delay_s=2.0)
    assert machine.tick(2.0) == Step()
    machine = begun(deadline_s=1.0)
    assert failed(machine, 1, 1.0) == Step(final=1)
    machine = begun(deadline_s=1.0)
    assert failed(machine, 1, 1.0, unseen=True) == Step(final=1)


# Endpoints.


def test_hedge_for_which_there_is_no_endpoint_leaves_the_others_alone() -> None:
    machine = begun()
    machine.tick(0.1)
    assert machine.nowhere(2) == Step()
    assert machine.answered(1) == Step(final=1)


def test_first_attempt_for_which_there_is_no_endpoint_ends_the_call() -> None:
    machine = hedging()
    machine.begin()
    assert machine.nowhere(1) == Step(final=1)


def test_no_hedge_begins_while_one_waits_for_an_endpoint() -> None:
    machine = begun()
    machine.tick(0.1)
    assert failed(machine, 1, 0.2) == Step()
    assert machine.tick(9.0) == Step()
    assert machine.started(2, 9.0) == Step(wake_s=near(9.1))


def test_attempt_that_never_left_is_repeated_and_counts_as_nothing() -> None:
    throttle = Throttle(Throttling(4, 1))
    machine = begun(attempts=2, throttle=throttle)
    assert failed(machine, 1, 0.01, unseen=True) == Step((Start(2, 0),), wake_s=0.1)
    machine.started(2, 0.01)
    assert machine.tick(0.1) == Step((Start(3, 1),))
    assert throttle.failed()  # 3 of 4: nothing was taken before


def test_repeating_what_never_left_has_an_end() -> None:
    machine = begun(attempts=2)
    number = 1
    for _ in range(MAX_TRANSPARENT):
        (start,) = failed(machine, number, 0.0, unseen=True).starts
        number = start.number
        machine.started(number, 0.0)
    assert failed(machine, number, 0.0, FATAL, unseen=True) == Step(final=number)


# Throttling.


def test_no_hedge_while_at_most_half_of_the_tokens_are_left() -> None:
    throttle = Throttle(Throttling(4, 1))
    for _ in range(2):
        throttle.failed()
    machine = begun(throttle=throttle)
    assert machine.tick(0.1) == Step()
    assert machine.answered(1) == Step(final=1)
    machine = begun(throttle=throttle)  # 3 of 4
    assert machine.tick(0.1) == Step((Start(2, 1),))


def test_failure_costs_a_token_and_ends_hedging_at_half() -> None:
    throttle = Throttle(Throttling(4, 0.1))
    machine = begun(attempts=5, throttle=throttle)
    assert failed(machine, 1, 0.0).starts == (Start(2, 1),)  # 3 of 4
    machine.started(2, 0.0)
    assert failed(machine, 2, 0.0) == Step(final=2)  # 2 of 4


def test_fatal_code_costs_no_token_unless_the_server_asks_for_no_more() -> None:
    throttle = Throttle(Throttling(4, 0.1))
    for _ in range(10):
        failed(begun(throttle=throttle), 1, 0.0, FATAL)
    assert throttle.allows()
    for _ in range(2):
        failed(begun(throttle=throttle), 1, 0.0, FATAL, pushback_ms=-1)
    assert not throttle.allows()
