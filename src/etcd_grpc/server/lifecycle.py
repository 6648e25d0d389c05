"""The life of a server, as a table: in which state an event leads where, and what is to be done then.

The rule: a call is lost by nobody's doing.  So a server leaves in this order: it says that it leaves
(in its health, and in etcd as ``draining``), gives clients a moment to move away, finishes what is in
flight, deletes its keys, and only then closes its listener.  All of that has an end, ``grace_s`` after
the first request to stop; a second request skips what is left of it, but for one attempt to withdraw.

What is not in the table changes nothing: a timer of a state that has been left, a request that was
granted already.  No I/O, no clock, no thread is known here; ``conductor.py`` carries the effects out.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["LEAVING", "TABLE", "Effect", "Event", "State", "Step", "drawing", "listing", "transition"]


class State(enum.StrEnum):
    """Where a server stands in its life."""

    STARTING = "starting"
    REGISTERING = "registering"
    SERVING = "serving"
    PAUSED = "paused"
    LAGGING = "lagging"
    PAUSED_LAGGING = "paused and lagging"
    ANNOUNCING = "announcing"
    SETTLING = "settling"
    FINISHING = "finishing"
    WITHDRAWING = "withdrawing"
    HURRYING = "hurrying"
    STOPPING = "stopping"
    ABANDONING = "abandoning"
    STOPPED = "stopped"


class Event(enum.StrEnum):
    """What happens to a server."""

    BOUND = "bound"
    REGISTERED = "registered"
    REGISTER_FAILED = "register failed"
    PAUSE = "pause asked"
    RESUME = "resume asked"
    LAGGED = "loop lags"
    RECOVERED = "loop recovered"
    STOP = "stop asked"
    HURRY = "second stop"
    ANNOUNCED = "announced"
    SETTLED = "settled"
    IDLE = "idle"
    GRACE_OVER = "grace over"
    WITHDRAWN = "withdrawn"
    CLOSED = "server closed"


class Effect(enum.StrEnum):
    """What is to be done on the way into a state, in the order in which it stands in the step."""

    HEALTH_ON = "health SERVING"
    HEALTH_OFF = "health NOT_SERVING"
    REGISTER = "register in etcd"
    MARK_SERVING = "etcd: serving"
    MARK_NOT_SERVING = "etcd: not_serving"
    MARK_DRAINING = "etcd: draining"
    COUNT_GRACE = "count grace_s"
    AWAIT_SETTLED = "wait settle_s"
    AWAIT_IDLE = "wait until nothing is in flight"
    WITHDRAW = "delete the keys"
    LIMIT_WITHDRAWAL = "give the withdrawal half a second more"
    STOP_SERVER = "GOAWAY, stop within the rest of grace_s"
    ABORT_SERVER = "stop at once"


class Step(NamedTuple):
    """Where an event leads, and what is to be done."""

    state: State
    effects: tuple[Effect, ...] = ()


_READY = (State.SERVING, (Effect.HEALTH_ON, Effect.MARK_SERVING))
_AWAY = (Effect.HEALTH_OFF, Effect.MARK_NOT_SERVING)
_LEAVE = Step(State.ANNOUNCING, (Effect.HEALTH_OFF, Effect.COUNT_GRACE, Effect.MARK_DRAINING))
# A second request to stop comes when nobody has patience: withdraw once, and end.
_HURRY = Step(State.HURRYING, (Effect.WITHDRAW,))
_OVER = Step(State.WITHDRAWING, (Effect.WITHDRAW,))

TABLE: Mapping[State, Mapping[Event, Step]] = {
    State.STARTING: {
        Event.BOUND: Step(State.REGISTERING, (Effect.HEALTH_ON, Effect.REGISTER)),
        Event.STOP: Step(State.STOPPING, (Effect.HEALTH_OFF, Effect.ABORT_SERVER)),
    },
    State.REGISTERING: {
        Event.REGISTERED: Step(State.SERVING),
        Event.REGISTER_FAILED: Step(State.ABANDONING, (Effect.HEALTH_OFF, Effect.WITHDRAW)),
        Event.STOP: _LEAVE,
    },
    State.SERVING: {
        Event.PAUSE: Step(State.PAUSED, _AWAY),
        Event.LAGGED: Step(State.LAGGING, _AWAY),
        Event.STOP: _LEAVE,
    },
    State.PAUSED: {
        Event.RESUME: Step(*_READY),
        Event.LAGGED: Step(State.PAUSED_LAGGING),
        Event.STOP: _LEAVE,
    },
    State.LAGGING: {
        Event.RECOVERED: Step(*_READY),
        Event.PAUSE: Step(State.PAUSED_LAGGING),
        Event.STOP: _LEAVE,
    },
    State.PAUSED_LAGGING: {
        Event.RESUME: Step(State.LAGGING),
        Event.RECOVERED: Step(State.PAUSED),
        Event.STOP: _LEAVE,
    },
    State.ANNOUNCING: {
        Event.ANNOUNCED: Step(State.SETTLING, (Effect.AWAIT_SETTLED,)),
        Event.GRACE_OVER: _OVER,
        Event.HURRY: _HURRY,
    },
    State.SETTLING: {
        Event.SETTLED: Step(State.FINISHING, (Effect.AWAIT_IDLE,)),
        Event.GRACE_OVER: _OVER,
        Event.HURRY: _HURRY,
    },
    State.FINISHING: {
        Event.IDLE: _OVER,
        Event.GRACE_OVER: _OVER,
        Event.HURRY: _HURRY,
    },
    State.WITHDRAWING: {
        Event.WITHDRAWN: Step(State.STOPPING, (Effect.STOP_SERVER,)),
        Event.HURRY: Step(State.HURRYING, (Effect.LIMIT_WITHDRAWAL,)),
    },
    State.HURRYING: {
        Event.WITHDRAWN: Step(State.STOPPING, (Effect.ABORT_SERVER,)),
    },
    State.STOPPING: {
        Event.CLOSED: Step(State.STOPPED),
        Event.HURRY: Step(State.STOPPING, (Effect.ABORT_SERVER,)),
    },
    # It could not be registered: whose server it is decides what becomes of it.
    State.ABANDONING: {
        Event.WITHDRAWN: Step(State.STOPPED),
    },
    State.STOPPED: {},
}

# From here on nothing leads back.
LEAVING = frozenset(
    {
        State.ANNOUNCING,
        State.SETTLING,
        State.FINISHING,
        State.WITHDRAWING,
        State.HURRYING,
        State.STOPPING,
        State.ABANDONING,
        State.STOPPED,
    }
)


def transition(state: State, event: Event) -> Step:
    """Where ``event`` leads from ``state``; nowhere, and to no effect, if it is not in the table."""
    return TABLE[state].get(event, Step(state))


def drawing() -> str:
    """The table as a state diagram in Mermaid's language, for the document that shows it."""
    lines = ["stateDiagram-v2", f"    [*] --> {_alias(State.STARTING)}"]
    lines += [f'    state "{state}" as {_alias(state)}' for state in State if " " in state]
    arrows: dict[tuple[State, State], list[str]] = {}
    for state, steps in TABLE.items():
        for event, step in steps.items():
            arrows.setdefault((state, step.state), []).append(event)
    for (state, after), happened in arrows.items():
        lines.append(f"    {_alias(state)} --> {_alias(after)}: {', '.join(happened)}")
    return "\n".join([*lines, f"    {_alias(State.STOPPED)} --> [*]"]) + "\n"


def listing() -> str:
    """The table as text, a line for each step with what is done there."""
    steps = [(state, event, step) for state, row in TABLE.items() for event, step in row.items()]
    state_width = max(len(state) for state in State)
    event_width = max(len(event) for event in Event)
    lines = []
    for state, event, step in steps:
        done = "; ".join(step.effects)
        arrow = f"{state:{state_width}}  {event:{event_width}}  -> {step.state:{state_width}}  {done}"
        lines.append(arrow.rstrip())
    return "\n".join(lines) + "\n"


def _alias(state: State) -> str:
    return state.replace(" ", "_")
