"""``outlier_detection``: what fails gets no calls for a while, and is tried with one call first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import grpc
import pytest
from tests.support.balancing import Node, Set, balancer, picks

from etcd_grpc.balancer.base import Picker
from etcd_grpc.balancer.panic import too_few

OK, DOWN = grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE


class Fleet:
    """Endpoints under outlier detection, as a channel would drive it."""

    def __init__(self, count: int = 10, **settings: Any) -> None:
        self.set = Set()
        self.nodes = self.set.nodes(*(f"e{n}" for n in range(count)))
        self.balancer = balancer({"outlier_detection": settings}, self.set.clock)
        self.picker: Picker[Node] | None = self.balancer.picker(self.nodes)

    def fail(self, node: Node, times: int = 5, code: grpc.StatusCode = DOWN) -> None:
        """Calls that fail; the channel ticks when it is asked to."""
        for _ in range(times):
            if self.set.call(node, code):
                self.tick()

    def tick(self) -> bool:
        changed = self.balancer.tick()
        if changed:
            self.picker = self.balancer.picker(self.nodes)
        return changed

    def wait(self, seconds: float) -> None:
        """Let time pass, ticking when it is due."""
        end = self.set.clock.now + seconds
        while (due := self.balancer.next_tick()) is not None and due <= end:
            self.set.clock.now = max(due, self.set.clock.now)
            self.tick()
        self.set.clock.now = end

    def serve(self, outcomes: Mapping[Node, tuple[int, int]]) -> None:
        """So many successes and failures of each, never many failures in a row."""
        for node, (successes, failures) in outcomes.items():
            for number in range(max(successes, failures)):
                if number < failures:
                    self.set.call(node, DOWN)
                if number < successes:
                    self.set.call(node, OK)

    def used(self) -> set[str]:
        return set(picks(self.picker, 300))

    def out(self) -> set[str]:
        return {node.endpoint.key for node in self.nodes} - self.used()


# Consecutive failures.


def test_five_failures_in_a_row_eject_at_once() -> None:
    fleet = Fleet()
    fleet.fail(fleet.nodes[3], 4)
    assert fleet.out() == set()
    fleet.fail(fleet.nodes[3], 1)
    assert fleet.out() == {"e3"}
    ejection = fleet.nodes[3].stats.ejection
    assert ejection is not None
    assert ejection.why == "5 failures in a row"
    assert 4 <= ejection.until_s - fleet.set.clock.now <= 6


def test_success_in_between_starts_the_count_again() -> None:
    fleet = Fleet()
    for _ in range(5):
        fleet.fail(fleet.nodes[0], 4)
        fleet.set.call(fleet.nodes[0], OK)
    assert fleet.out() == set()


@pytest.mark.parametrize("code", [grpc.StatusCode.NOT_FOUND, grpc.StatusCode.CANCELLED, OK])
def test_what_is_not_the_servers_fault_ejects_nobody(code: grpc.StatusCode) -> None:
    fleet = Fleet()
    fleet.fail(fleet.nodes[0], 100, code)
    fleet.wait(20)
    assert fleet.out() == set()


def test_none_is_ejected_for_failures_in_a_row_if_that_is_off() -> None:
    fleet = Fleet(consecutiveFailures=0)
    fleet.fail(fleet.nodes[0], 100)
    fleet.wait(20)
    assert fleet.out() == set()


# Coming back.


def test_one_call_tries_an_ejected_endpoint_and_its_success_brings_it_back() -> None:
    fleet = Fleet()
    fleet.fail(fleet.nodes[0])
    fleet.wait(6)
    assert picks(fleet.picker, 300).count("e0") == 1
    assert fleet.set.call(fleet.nodes[0], OK)
    assert fleet.tick()
    assert fleet.out() == set()


def test_failure_of_that_call_ejects_anew_for_longer() -> None:
    fleet = Fleet()
    fleet.fail(fleet.nodes[0])
    fleet.wait(6)
    assert fleet.set.call(fleet.nodes[0], DOWN)
    assert fleet.tick()
    assert "e0" in fleet.out()
    ejection = fleet.nodes[0].stats.ejection
    assert ejection is not None
    assert 8 <= ejection.until_s - fleet.set.clock.now <= 12


def test_while_the_trying_call_hangs_no_other_is_sent() -> None:
    fleet = Fleet()
    fleet.fail(fleet.nodes[0])
    fleet.wait(6)
    assert picks(fleet.picker, 300).count("e0") == 1
    hanging = fleet.set.ticket(fleet.nodes[0])
    for _ in range(10):
        fleet.wait(10)
        assert "e0" in fleet.out()
    assert hanging.finish(grpc.StatusCode.DEADLINE_EXCEEDED)
    fleet.tick()
    assert "e0" in fleet.out()


def test_stream_that_was_open_before_does_not_keep_an_endpoint_from_being_tried() -> None:
    fleet = Fleet()
    fleet.set.ticket(fleet.nodes[0])  # and never ends
    fleet.fail(fleet.nodes[0])
    fleet.wait(6)
    assert picks(fleet.picker, 300).count("e0") == 1


def test_chance_that_got_lost_is_offered_again() -> None:
    """A call may be cancelled, or picked and never sent."""
    fleet = Fleet()
    fleet.fail(fleet.nodes[0])
    fleet.wait(6)
    assert "e0" in fleet.used()
    fleet.set.call(fleet.nodes[0], grpc.StatusCode.CANCELLED)
    assert "e0" not in fleet.used()
    fleet.wait(10)
    assert picks(fleet.picker, 300).count("e0") == 1


def test_ejections_get_longer_up_to_the_longest_and_shorter_with_quiet_intervals() -> None:
    fleet = Fleet(maxEjectionTime="20s")
    stats = fleet.nodes[0].stats
    held = []
    for _ in range(6):
        fleet.fail(fleet.nodes[0])
        assert stats.ejection is not None
        held.append(stats.ejection.until_s - fleet.set.clock.now)
        fleet.wait(held[-1])
        fleet.used()
        fleet.set.call(fleet.nodes[0], OK)
        fleet.tick()
    for number, seconds in enumerate(held):
        assert seconds == pytest.approx(min(5 * (number + 1), 20), rel=0.45)
    before = stats.ejections
    fleet.wait(30)
    assert stats.ejections == before - 3
    fleet.wait(300)
    assert stats.ejections == 0


# How many.


@pytest.mark.parametrize(("count", "most"), [(2, 1), (9, 1), (10, 1), (19, 1), (20, 2), (30, 3)])
def test_at_most_a_tenth_is_ejected_but_one_may_always_be(count: int, most: int) -> None:
    fleet = Fleet(count)
    for node in fleet.nodes:
        fleet.fail(node, 10)
    assert len(fleet.out()) == most


def test_none_is_ejected_if_none_may_be() -> None:
    fleet = Fleet(maxEjectionPercent=0)
    fleet.fail(fleet.nodes[0], 20)
    assert fleet.out() == set()


@pytest.mark.parametrize("usable", range(11))
def test_panic_is_under_half(usable: int) -> None:
    assert too_few(range(usable), range(10)) is (usable < 5)


def test_under_half_usable_all_are_used_and_it_is_said() -> None:
    fleet = Fleet(maxEjectionPercent=100)
    for node in fleet.nodes[:5]:
        fleet.fail(node)
    assert len(fleet.out()) == 5
    assert not fleet.balancer.panicking
    fleet.fail(fleet.nodes[5])
    assert fleet.balancer.panicking
    assert fleet.out() == set()


def test_panic_ends_when_answers_come_again() -> None:
    fleet = Fleet(maxEjectionPercent=100)
    for node in fleet.nodes[:8]:
        fleet.fail(node)
    fleet.wait(30)
    for node in fleet.nodes:
        if fleet.set.call(node, OK):
            fleet.tick()
    assert not fleet.balancer.panicking
    assert fleet.out() == set()


def test_only_endpoint_is_used_though_it_fails() -> None:
    fleet = Fleet(1)
    fleet.fail(fleet.nodes[0], 50)
    assert fleet.used() == {"e0"}
    assert fleet.balancer.panicking


def test_without_a_threshold_all_are_used_only_if_none_is_left() -> None:
    fleet = Fleet(4, maxEjectionPercent=100, panicThreshold=0)
    for node in fleet.nodes[:3]:
        fleet.fail(node)
    assert fleet.used() == {"e3"}
    fleet.fail(fleet.nodes[3])
    assert len(fleet.used()) == 4


# gRFC A50.

RATE: dict[str, Any] = {"successRateEjection": {}, "consecutiveFailures": 0}
FAILURES: dict[str, Any] = {"failurePercentageEjection": {}, "consecutiveFailures": 0}


def test_low_success_rate_is_ejected_at_the_end_of_the_interval() -> None:
    fleet = Fleet(**RATE)
    fleet.serve(dict.fromkeys(fleet.nodes[1:], (100, 0)) | {fleet.nodes[0]: (50, 50)})
    fleet.wait(9.9)
    assert fleet.out() == set()
    fleet.wait(0.2)
    assert fleet.out() == {"e0"}
    ejection = fleet.nodes[0].stats.ejection
    assert ejection is not None
    assert ejection.why == "success rate 50.0%"
    assert 24 <= ejection.until_s - fleet.set.clock.now <= 36


def test_fleet_that_is_equally_bad_has_no_outlier() -> None:
    fleet = Fleet(**RATE)
    fleet.serve(dict.fromkeys(fleet.nodes, (50, 50)))
    fleet.wait(11)
    assert fleet.out() == set()


@pytest.mark.parametrize(("count", "volume"), [(4, 100), (10, 99)])
def test_too_few_endpoints_or_calls_are_not_judged(count: int, volume: int) -> None:
    fleet = Fleet(count, **RATE)
    fleet.serve(dict.fromkeys(fleet.nodes[1:], (volume, 0)) | {fleet.nodes[0]: (0, volume)})
    fleet.wait(11)
    assert fleet.out() == set()


@pytest.mark.parametrize(("failures", "ejected"), [(86, {"e0"}), (85, set())])
def test_high_failure_percentage_is_ejected(failures: int, ejected: set[str]) -> None:
    fleet = Fleet(**FAILURES)
    others = dict.fromkeys(fleet.nodes[1:], (100, 0))
    fleet.serve(others | {fleet.nodes[0]: (100 - failures, failures)})
    fleet.wait(11)
    assert fleet.out() == ejected


def test_each_interval_is_judged_by_itself() -> None:
    fleet = Fleet(**FAILURES)
    for _ in range(3):
        fleet.serve(dict.fromkeys(fleet.nodes, (0, 40)))  # under the volume
        fleet.wait(10)
    assert fleet.out() == set()


def test_outliers_are_only_ejected_as_often_as_is_enforced() -> None:
    fleet = Fleet(failurePercentageEjection={"enforcementPercentage": 0}, consecutiveFailures=0)
    fleet.serve(dict.fromkeys(fleet.nodes[1:], (60, 0)) | {fleet.nodes[0]: (0, 60)})
    fleet.wait(11)
    assert fleet.out() == set()


def test_new_endpoints_are_judged_by_what_they_do_from_now_on() -> None:
    fleet = Fleet(**FAILURES)
    fresh = fleet.set.node("fresh")
    for _ in range(100):
        fleet.set.call(fresh, DOWN)  # before this policy watched it
    fleet.nodes.append(fresh)
    fleet.picker = fleet.balancer.picker(fleet.nodes)
    fleet.serve(dict.fromkeys(fleet.nodes, (60, 0)))
    fleet.wait(11)
    assert fleet.out() == set()


# With others.


def test_ejection_survives_an_update_of_the_set() -> None:
    fleet = Fleet()
    fleet.fail(fleet.nodes[0])
    fleet.nodes = [*fleet.set.nodes("new"), *fleet.set.nodes("e0", "e1", "e2", weight=2)]
    fleet.picker = fleet.balancer.picker(fleet.nodes)
    assert fleet.out() == {"e0"}


def test_nothing_stands_between_a_call_and_the_child_while_all_is_well() -> None:
    fleet = Fleet()
    assert type(fleet.picker).__module__ == "etcd_grpc.balancer.turns"


def test_endpoint_that_the_child_leaves_out_is_not_tried() -> None:
    child = [{"filter": {"match": {"version": "v2"}}}]
    fleet = Fleet(childPolicy=child)
    fleet.nodes = [fleet.set.node("v1"), *(fleet.set.node(f"v2-{n}", version="v2") for n in range(9))]
    fleet.picker = fleet.balancer.picker(fleet.nodes)
    fleet.fail(fleet.nodes[0])
    assert fleet.nodes[0].stats.ejection is not None
    fleet.wait(100)
    assert "v1" not in fleet.used()


def test_alarm_is_not_repeated_for_each_failing_call() -> None:
    """While all fail and no more may be ejected, the channel must not tick for every call."""
    fleet = Fleet(20)
    alarms = sum(fleet.set.call(node, DOWN) for node in fleet.nodes for _ in range(50))
    assert alarms <= 50 * 20 / 5
