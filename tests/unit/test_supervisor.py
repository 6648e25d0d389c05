"""When worker processes are started again, replaced and given up."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.places import House

from etcd_grpc.server.workers.supervisor import (
    GIVE_UP_AFTER,
    Crashed,
    Go,
    Hurry,
    Kill,
    Phase,
    RollEnded,
    Spawn,
    Stop,
)


def served(places: int, *, exclusive: bool = False) -> House:
    """All places serve."""
    house = House(places, exclusive=exclusive)
    house.serve()
    assert house.machine.serving == places
    house.told.clear()
    return house


def test_every_place_gets_a_process_that_serves_once_it_is_loaded() -> None:
    house = House(2)
    assert house.told == [Spawn(0, 0), Spawn(1, 1)]
    assert house.loaded(1) == [Go(1)]
    assert house.ready(1) == []
    assert house.machine.serving == 1


def test_a_crash_is_made_good_at_once_and_then_after_growing_delays() -> None:
    house = served(2)
    assert house.exited(1, -9) == [Crashed(1, 1, -9, 1, 0.0)]
    assert house.later(0) == [Spawn(2, 1)]
    for times, delay_s in ((2, 1.0), (3, 2.0), (4, 4.0)):
        house.exited(house.alive[-1])
        assert house.told[-1] == Crashed(house.told[-1].key, 1, 1, times, delay_s)  # type: ignore[union-attr]
        assert house.machine.next_tick == house.now + delay_s
        assert house.later(delay_s / 2) == []
        assert [type(effect) for effect in house.later(delay_s / 2)] == [Spawn]
    assert house.machine.serving == 1


def test_row_43_one_that_always_crashes_is_not_the_end_while_others_serve() -> None:
    house = served(2)
    for _ in range(20):
        house.exited(house.alive[-1])
        house.later(1e6)
    assert house.machine.outcome is None
    assert house.machine.serving == 1
    assert len(house.alive) == 2


def test_row_43_when_none_is_left_it_gives_up() -> None:
    house = served(2)
    for times in range(1, GIVE_UP_AFTER + 1):
        for place in (0, 1):
            assert house.machine.outcome is None, (times, place)
            house.exited(next(key for key in house.alive if house.places[key] == place))
            house.later(100)
    assert house.machine.outcome is None  # asked to stop what it has just started again
    for key in house.alive:
        house.exited(key)
    assert house.machine.outcome == 1


def test_serving_for_a_while_makes_the_next_crash_the_first() -> None:
    house = served(1)
    for _ in range(GIVE_UP_AFTER - 1):
        house.exited(house.alive[0])
        house.later(100)
    house.serve()
    house.later(31)
    key = house.alive[0]
    assert house.exited(key) == [Crashed(key, 0, 1, 1, 0.0)]
    assert house.machine.outcome is None


def test_a_first_start_that_cannot_work_ends_all_at_once() -> None:
    house = House(2)
    house.loaded(0)
    house.ready(0)
    assert house.exited(1, hopeless=True) == [Crashed(1, 1, 1, 1, None), Stop(0)]
    house.exited(0, 0)
    assert house.machine.outcome == 1


def test_later_the_same_is_tried_again_since_others_serve() -> None:
    house = served(2)
    house.exited(1)
    house.later(0)
    assert house.exited(2, hopeless=True) == [Crashed(2, 1, 1, 2, 1.0)]
    assert house.machine.outcome is None


def test_stop_lets_all_leave_and_ends_when_they_have() -> None:
    house = served(2)
    assert house.stop() == [Stop(0), Stop(1)]
    assert house.exited(0, 0) == []
    assert house.machine.outcome is None
    assert house.exited(1, 0) == []
    assert house.machine.outcome == 0


def test_a_second_stop_hurries_and_what_is_still_there_is_killed() -> None:
    house = served(2)
    house.stop()
    assert house.stop() == [Hurry(0), Hurry(1)]
    house.exited(0, 0)
    assert house.later(0.5) == []
    assert house.later(0.6) == [Kill(1)]
    house.exited(1, -9)
    assert house.machine.outcome == 0


def test_what_does_not_end_within_its_grace_is_killed() -> None:
    house = served(1)
    house.stop()
    assert house.later(14.9) == []
    assert house.later(0.2) == [Kill(0)]


def test_nothing_is_started_once_it_was_asked_to_stop() -> None:
    house = served(2)
    house.exited(1)
    house.stop()
    assert house.later(1000) == [Kill(0)]
    assert house.roll() == []


def test_rolling_replaces_one_after_the_other_the_new_one_first() -> None:
    house = served(2)
    assert house.roll() == [Spawn(2, 0)]
    assert house.loaded(2) == [Go(2)]
    assert house.ready(2) == [Stop(0)]
    assert house.exited(0, 0) == [Spawn(3, 1)]
    assert house.loaded(3) == [Go(3)]
    assert house.ready(3) == [Stop(1)]
    assert house.exited(1, 0) == [RollEnded(None)]
    assert house.machine.serving == 2


def test_where_a_port_is_held_by_one_the_old_one_leaves_when_the_new_one_is_loaded() -> None:
    house = served(2, exclusive=True)
    assert house.roll() == [Spawn(2, 0)]
    assert house.loaded(2) == [Stop(0)]
    assert house.exited(0, 0) == [Go(2)]
    assert house.ready(2) == [Spawn(3, 1)]
    assert house.loaded(3) == [Stop(1)]
    assert house.exited(1, 0) == [Go(3)]
    assert house.ready(3) == [RollEnded(None)]


@pytest.mark.parametrize("exclusive", [True, False])
def test_new_code_that_cannot_be_loaded_leaves_the_old_one_serving(exclusive: bool) -> None:
    house = served(2, exclusive=exclusive)
    house.roll()
    assert house.exited(2, hopeless=True) == [Crashed(2, 0, 1, 1, None), RollEnded(0)]
    assert house.machine.serving == 2
    assert house.later(1000) == []


def test_a_new_one_that_cannot_serve_after_the_old_one_left_is_tried_again() -> None:
    house = served(2, exclusive=True)
    house.roll()
    house.loaded(2)
    house.exited(0, 0)
    assert house.exited(2) == [Crashed(2, 0, 1, 1, 0.0), RollEnded(0)]
    assert house.later(0) == [Spawn(3, 0)]
    assert house.machine.serving == 1


def test_a_crash_of_the_old_one_does_not_end_the_rolling() -> None:
    house = served(1)
    house.roll()
    assert house.exited(0) == [Crashed(0, 0, 1, 1, 0.0)]
    assert house.later(100) == []  # its replacement is there
    assert house.loaded(1) == [Go(1)]
    assert house.ready(1) == [RollEnded(None)]


def test_a_request_to_roll_during_a_rolling_rolls_again() -> None:
    house = served(2)
    house.roll()
    assert house.roll() == []
    for _ in range(10):
        house.serve()
        for key in house.alive:
            if house.machine.phase(key) is Phase.LEAVING:
                house.exited(key, 0)
    assert house.told.count(RollEnded(None)) == 1
    assert [effect.place for effect in house.told if isinstance(effect, Spawn)] == [0, 0, 1]


@settings(max_examples=300)
@given(
    places=st.integers(1, 3),
    exclusive=st.booleans(),
    steps=st.lists(st.tuples(st.sampled_from("leekkrrtth"), st.integers(0, 9)), max_size=80),
)
def test_whatever_happens_no_place_is_forgotten_and_no_port_taken_twice(
    places: int, exclusive: bool, steps: list[tuple[str, int]]
) -> None:
    house = House(places, exclusive=exclusive)
    for step, number in steps:
        if step == "r":
            house.roll()
        elif step == "t":
            house.later(number)
        elif house.alive:
            key = house.alive[number % len(house.alive)]
            phase = house.machine.phase(key)
            if step == "k":
                house.exited(key, 0)
            elif step == "h" and phase is Phase.STARTING:
                house.exited(key, 1, hopeless=True)
            elif phase is Phase.STARTING:
                house.loaded(key)
            elif phase is Phase.LOADED and key in house.listening:
                house.ready(key)
            elif phase is Phase.LEAVING:
                house.exited(key, 0)
        _check(house, places, exclusive)
        if house.machine.outcome is not None:
            return
    house.stop()
    for key in house.alive:
        house.exited(key, 0)
    assert house.machine.outcome is not None


def _check(house: House, places: int, exclusive: bool) -> None:
    lived_in = list(house.places.values())
    stopping = any(house.machine.phase(key) is Phase.LEAVING for key in house.alive)
    for place in range(places):
        assert lived_in.count(place) <= 2
        if exclusive:
            assert sum(house.places[key] == place for key in house.listening) <= 1
    if house.machine.outcome is None and not stopping:
        assert len(set(lived_in)) == places or house.machine.next_tick is not None
