"""What is known of an endpoint's load, and whose statistics are whose."""

from __future__ import annotations

import math

import grpc
import pytest
from tests.support.balancing import Clock, Set, endpoint

from etcd_grpc.balancer.load import TAU_S, Average, Stats, in_flight, peak_ewma
from etcd_grpc.balancer.stats_table import StatsTable
from etcd_grpc.balancer.ticket import FAULTS, Ticket, verdict

NOW = 1000.0


def stats(average_s: float = 0.0) -> Stats:
    average = Average()
    average.cost_s = average_s
    return Stats(average, NOW)


# Peak EWMA.


def test_slower_answer_is_believed_at_once() -> None:
    made = stats()
    made.observe(True, 0.010, NOW)
    made.observe(True, 0.100, NOW)
    assert made.cost == (0.100, NOW)


def test_faster_answer_is_believed_by_and_by() -> None:
    made = stats()
    made.observe(True, 0.100, NOW)
    made.observe(True, 0.010, NOW + TAU_S)
    weight = math.exp(-1)
    assert made.cost[0] == pytest.approx(0.010 * (1 - weight) + 0.100 * weight)


def test_cost_fades_towards_the_average_when_read() -> None:
    made = stats(average_s=0.010)
    made.cost = (0.100, NOW)
    read = [made.cost_s(NOW + after) for after in (0, TAU_S, 10 * TAU_S)]
    assert read[0] == pytest.approx(0.100)
    assert read[1] == pytest.approx(0.010 + 0.090 * math.exp(-1))
    assert read[2] == pytest.approx(0.010, rel=1e-3)
    assert made.cost == (0.100, NOW)  # reading changes nothing


def test_endpoint_that_never_answered_counts_as_average() -> None:
    assert stats(average_s=0.020).cost_s(NOW) == 0.020


def test_first_answer_of_a_set_is_its_average() -> None:
    made = stats()
    made.observe(True, 0.030, NOW)
    assert made.average.cost_s == 0.030


@pytest.mark.parametrize("ok", [False, None])
def test_what_fails_or_is_cancelled_fast_does_not_look_fast(ok: bool | None) -> None:
    made = stats(average_s=0.050)
    made.observe(ok, 0.0001, NOW)
    assert made.cost_s(NOW) == 0.050
    assert made.average.cost_s == 0.050


@pytest.mark.parametrize("ok", [False, None])
def test_what_fails_slowly_looks_slow(ok: bool | None) -> None:
    made = stats(average_s=0.050)
    made.observe(ok, 1.0, NOW)
    assert made.cost_s(NOW) == 1.0


def test_clock_that_steps_back_makes_no_overflow() -> None:
    made = stats(average_s=0.010)
    made.observe(True, 0.1, NOW)
    made.observe(True, 0.01, NOW - 1e6)
    assert 0.01 <= made.cost_s(NOW - 2e6) <= 0.1


def test_loads() -> None:
    made = stats()
    made.in_flight.extend([None] * 3)
    made.observe(True, 0.010, NOW)
    assert in_flight(made, 1.0) == 3
    assert in_flight(made, 2.0) == 1.5
    assert peak_ewma(Clock(NOW))(made, 1.0) == pytest.approx(0.040)
    assert peak_ewma(Clock(NOW))(made, 3.0) == pytest.approx(0.020)  # only the queue is shared


# Counting outcomes.


def test_outcomes_are_counted() -> None:
    made = stats()
    for ok in (True, False, False, None, True, False):
        made.observe(ok, 0.01, NOW)
    assert (made.successes, made.failures, made.in_a_row) == (2, 3, 1)


def test_alarm_sounds_once_for_each_so_many_failures_in_a_row() -> None:
    made = stats()
    made.alarm_at = 3
    assert [made.observe(False, 0.01, NOW) for _ in range(7)] == [False, False, True] * 2 + [False]
    made.observe(True, 0.01, NOW)
    assert not made.observe(False, 0.01, NOW)


# Tickets.


def test_call_is_in_flight_until_its_ticket_is_finished() -> None:
    made = Set()
    node = made.node("a")
    ticket = made.ticket(node)
    assert (len(node.stats.in_flight), node.stats.picks) == (1, 1)
    made.clock.now += 0.25
    ticket.finish(grpc.StatusCode.OK)
    assert len(node.stats.in_flight) == 0
    assert node.stats.cost == (0.25, made.clock.now)


def test_ticket_counts_once_however_often_it_is_finished() -> None:
    made = Set()
    node = made.node("a")
    first, second = made.ticket(node), made.ticket(node)
    for code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.OK, grpc.StatusCode.INTERNAL):
        first.finish(code)
    assert (node.stats.successes, node.stats.failures, len(node.stats.in_flight)) == (0, 1, 1)
    second.finish(grpc.StatusCode.OK)
    assert len(node.stats.in_flight) == 0


def test_call_on_the_connection_before_is_not_counted_on_the_new_one() -> None:
    made = Set()
    node = made.node("a")
    ticket = made.ticket(node)
    node.stats.connect()
    assert len(node.stats.in_flight) == 0
    ticket.finish(grpc.StatusCode.UNAVAILABLE)
    assert len(node.stats.in_flight) == 0
    assert node.stats.failures == 1


@pytest.mark.parametrize("code", grpc.StatusCode)
def test_verdict(code: grpc.StatusCode) -> None:
    if code is grpc.StatusCode.CANCELLED:
        assert verdict(code) is None
    else:
        assert verdict(code) is (code not in FAULTS)


def test_answers_about_the_caller_are_not_the_servers_fault() -> None:
    for code in ("OK", "NOT_FOUND", "INVALID_ARGUMENT", "PERMISSION_DENIED", "ABORTED"):
        assert verdict(grpc.StatusCode[code]) is True


# Whose statistics are whose.


def table() -> tuple[StatsTable, Clock]:
    clock = Clock()
    return StatsTable(clock, keep_s=100), clock


def test_statistics_survive_an_update_of_weight_zone_and_metadata() -> None:
    made, _ = table()
    before = made.enter(endpoint("a", id="x"))
    assert made.enter(endpoint("a", id="x", weight=5, zone="z", metadata={"k": 1})) is before


@pytest.mark.parametrize("changed", [{"address": "other:1"}, {"id": "y"}])
def test_another_address_or_process_under_the_same_key_starts_anew(changed: dict[str, str]) -> None:
    made, clock = table()
    before = made.enter(endpoint("a", id="x"))
    clock.now += 10
    after = made.enter(endpoint("a", **({"id": "x"} | changed)))
    assert after is not before
    assert after.since_s == clock.now
    assert len(made) == 1


def test_endpoint_that_comes_back_soon_finds_its_statistics() -> None:
    made, clock = table()
    before = made.enter(endpoint("a"))
    made.leave("a")
    assert len(made) == 0
    clock.now += 99
    assert made.enter(endpoint("a")) is before


def test_endpoint_that_was_away_long_is_forgotten() -> None:
    made, clock = table()
    before = made.enter(endpoint("a"))
    made.leave("a")
    clock.now += 101
    made.leave("b")
    assert made.enter(endpoint("a")) is not before


def test_memory_is_bounded_while_endpoints_come_and_go() -> None:
    made, _ = table()
    first = made.enter(endpoint("first"))
    made.leave("first")
    for number in range(1000):
        made.enter(endpoint(f"e{number}"))
        made.leave(f"e{number}")
    assert made.enter(endpoint("first")) is not first


def test_all_endpoints_of_a_table_share_their_average() -> None:
    made, clock = table()
    one, other = made.enter(endpoint("a")), made.enter(endpoint("b"))
    Ticket(one, clock).finish(grpc.StatusCode.OK)
    one.observe(True, 0.2, clock.now)
    assert other.cost_s(clock.now) == one.average.cost_s > 0


# What a backend says of itself.


def test_first_report_counts_from_the_last_long_silence() -> None:
    made = stats()
    made.tell(0.5, 100, 0, NOW)
    made.tell(0.5, 100, 0, NOW + 100)
    assert made.report is not None
    assert (made.report.first_s, made.report.last_s) == (NOW, NOW + 100)
    made.tell(0.5, 100, 0, NOW + 400)
    assert made.report.first_s == NOW + 400
