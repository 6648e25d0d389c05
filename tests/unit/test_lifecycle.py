"""The table of a server's life: every path ends, nothing leads back, and the order loses no call."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from etcd_grpc.server.lifecycle import (
    LEAVING,
    TABLE,
    Effect,
    Event,
    State,
    drawing,
    listing,
    transition,
)

LIVING = [state for state in State if state not in LEAVING]


def lived(*happened: Event) -> tuple[State, list[Effect]]:
    """The state, and all that was done, after these events."""
    state, done = State.STARTING, list[Effect]()
    for event in happened:
        state, effects = transition(state, event)
        done += effects
    return state, done


def test_every_state_has_a_row() -> None:
    assert set(TABLE) == set(State)


def test_every_state_can_be_reached() -> None:
    reached, new = {State.STARTING}, {State.STARTING}
    while new:
        new = {step.state for state in new for step in TABLE[state].values()} - reached
        reached |= new
    assert reached == set(State)


def test_every_event_and_every_effect_is_used() -> None:
    steps = [(event, step) for row in TABLE.values() for event, step in row.items()]
    assert {event for event, _ in steps} == set(Event)
    assert {effect for _, step in steps for effect in step.effects} == set(Effect)


def test_an_orderly_life() -> None:
    state, done = lived(
        Event.BOUND,
        Event.REGISTERED,
        Event.STOP,
        Event.ANNOUNCED,
        Event.SETTLED,
        Event.IDLE,
        Event.WITHDRAWN,
        Event.CLOSED,
    )
    assert state is State.STOPPED
    assert done == [
        Effect.HEALTH_ON,
        Effect.REGISTER,
        Effect.HEALTH_OFF,
        Effect.COUNT_GRACE,
        Effect.MARK_DRAINING,
        Effect.AWAIT_SETTLED,
        Effect.AWAIT_IDLE,
        Effect.WITHDRAW,
        Effect.STOP_SERVER,
    ]


@pytest.mark.parametrize("state", LIVING)
def test_stop_is_possible_from_everywhere(state: State) -> None:
    assert transition(state, Event.STOP).state in LEAVING


@pytest.mark.parametrize("state", sorted(LEAVING))
def test_nothing_leads_back(state: State) -> None:
    assert {step.state for step in TABLE[state].values()} <= LEAVING


@pytest.mark.parametrize("state", sorted(LEAVING))
def test_who_leaves_is_not_asked_to_stop_again(state: State) -> None:
    assert transition(state, Event.STOP) == (state, ())


def ways(state: State, done: tuple[Effect, ...] = ()) -> Iterator[tuple[Effect, ...]]:
    """What is done on every way from ``state`` to the end, no step twice."""
    if state is State.STOPPED:
        yield done
    for step in TABLE[state].values():
        if step.state is not state:
            yield from ways(step.state, done + step.effects)


@pytest.mark.parametrize("state", [State.SERVING, State.PAUSED, State.LAGGING, State.REGISTERING])
def test_on_every_way_out_the_key_goes_once_and_before_the_listener(state: State) -> None:
    found = list(ways(*transition(state, Event.STOP)))
    assert found
    for way in found:
        assert way.count(Effect.WITHDRAW) == 1
        closing = [e for e in way if e in {Effect.STOP_SERVER, Effect.ABORT_SERVER}]
        assert len(closing) == 1
        assert way.index(Effect.WITHDRAW) < way.index(closing[0])
        assert way[0] is Effect.HEALTH_OFF


def test_a_second_stop_skips_the_waiting() -> None:
    state, done = lived(Event.BOUND, Event.REGISTERED, Event.STOP, Event.HURRY, Event.WITHDRAWN)
    assert state is State.STOPPING
    assert done[-2:] == [Effect.WITHDRAW, Effect.ABORT_SERVER]


def test_a_second_stop_does_not_withdraw_again() -> None:
    begun = (Event.BOUND, Event.REGISTERED, Event.STOP, Event.ANNOUNCED, Event.SETTLED, Event.IDLE)
    _, done = lived(*begun, Event.HURRY, Event.WITHDRAWN, Event.HURRY, Event.CLOSED)
    assert done.count(Effect.WITHDRAW) == 1
    assert Effect.LIMIT_WITHDRAWAL in done


@pytest.mark.parametrize("waiting", [State.ANNOUNCING, State.SETTLING, State.FINISHING])
def test_the_end_of_grace_ends_all_waiting(waiting: State) -> None:
    assert transition(waiting, Event.GRACE_OVER) == (State.WITHDRAWING, (Effect.WITHDRAW,))


def test_a_failed_registration_leaves_the_server_alone() -> None:
    state, done = lived(Event.BOUND, Event.REGISTER_FAILED, Event.WITHDRAWN)
    assert state is State.STOPPED
    assert not {Effect.STOP_SERVER, Effect.ABORT_SERVER} & set(done)


def test_lagging_and_pausing_do_not_undo_each_other() -> None:
    serving = (Event.BOUND, Event.REGISTERED)
    for first, second, third in (
        (Event.PAUSE, Event.LAGGED, Event.RESUME),
        (Event.LAGGED, Event.PAUSE, Event.RECOVERED),
    ):
        assert lived(*serving, first, second)[0] is State.PAUSED_LAGGING
        assert lived(*serving, first, second, third)[0] in {State.PAUSED, State.LAGGING}
        assert Effect.MARK_SERVING not in lived(*serving, first, second, third)[1]


@pytest.mark.parametrize(
    ("away", "back"), [(Event.PAUSE, Event.RESUME), (Event.LAGGED, Event.RECOVERED)]
)
def test_serving_again_is_told_everywhere(away: Event, back: Event) -> None:
    state, done = lived(Event.BOUND, Event.REGISTERED, away, back)
    assert state is State.SERVING
    assert done[-4:] == [
        Effect.HEALTH_OFF,
        Effect.MARK_NOT_SERVING,
        Effect.HEALTH_ON,
        Effect.MARK_SERVING,
    ]


def test_a_late_timer_changes_nothing() -> None:
    assert transition(State.STOPPED, Event.GRACE_OVER) == (State.STOPPED, ())
    assert transition(State.SERVING, Event.SETTLED) == (State.SERVING, ())


@pytest.mark.parametrize("page", ["serving.md", "serving.zh-CN.md"])
def test_the_pages_show_the_table_as_it_is(page: str) -> None:
    text = (Path(__file__).parents[2] / "docs" / page).read_text("utf-8")
    assert f"```mermaid\n{drawing()}```" in text, "drawing() has changed: put it there"
    assert f"```text\n{listing()}```" in text, "listing() has changed: put it there"
