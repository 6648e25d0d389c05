"""When worker processes are started, stopped and started again: the state machine.  Pure.

Each of a fixed number of *places* is to have one process that serves.  A process goes through

    STARTING --loaded--> LOADED --Go, ready--> SERVING --Stop--> LEAVING --exited-->

``loaded`` means that the application could be imported; it serves only when told to ``Go``, so that
code that is broken is found out before the process that it shall replace has left.

- A process that ends unasked is replaced, at once the first time, then after delays that grow.  Serving
  for ``STEADY_S`` makes them short again.
- Rolling: place after place gets a second process.  If both can serve at once, the old one is stopped
  when the new one serves; if they cannot (``exclusive``: a port of its own), it is stopped when the new
  one is loaded.  If the new one ends before it serves, the rolling ends; the old one stays if it can.
- The end: asked to stop, when the last process has gone; or by itself when nothing serves and every
  place has failed ``GIVE_UP_AFTER`` times in a row, or when the first start fails for a reason that
  another attempt will not cure.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

__all__ = [
    "GIVE_UP_AFTER",
    "STEADY_S",
    "Crashed",
    "Delays",
    "Effect",
    "Go",
    "Hurry",
    "Kill",
    "Phase",
    "RollEnded",
    "Spawn",
    "Stop",
    "Supervisor",
]

GIVE_UP_AFTER = 5
STEADY_S = 30.0
_HURRY_S = 1.0  # from the second request to stop to SIGKILL
_OVERTIME_S = 5.0  # beyond the grace period, before a process that does not end is killed


class Phase(enum.Enum):
    """Where a process stands."""

    STARTING = "starting"
    LOADED = "loaded"
    SERVING = "serving"
    LEAVING = "leaving"


class Delays(Protocol):
    """How long to wait before each attempt, growing (``etcd.backoff.Backoff``)."""

    def next_delay(self) -> float:
        """Count a failure; return seconds."""

    def reset(self) -> None:
        """It works again."""


@dataclass(frozen=True, slots=True)
class Spawn:
    """Start process ``key`` for ``place``."""

    key: int
    place: int


@dataclass(frozen=True, slots=True)
class Go:
    """Let it serve."""

    key: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Let it leave in order."""

    key: int


@dataclass(frozen=True, slots=True)
class Hurry:
    """It shall skip what is left of leaving."""

    key: int


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGKILL."""

    key: int


@dataclass(frozen=True, slots=True)
class Crashed:
    """Tell that it ended unasked with ``status``, the ``times``-th time in a row."""

    key: int
    place: int
    status: int
    times: int
    again_in_s: float | None  # None: it is not started again


@dataclass(frozen=True, slots=True)
class RollEnded:
    """Tell that all places were rolled, or at which of them that failed."""

    failed_place: int | None


Effect = Spawn | Go | Stop | Hurry | Kill | Crashed | RollEnded


@dataclass(slots=True)
class _Process:
    key: int
    place: int
    phase: Phase = Phase.STARTING
    serving_since_s: float = 0.0
    kill_at_s: float | None = None


@dataclass(slots=True)
class _Place:
    number: int
    delays: Delays
    crashes: int = 0  # in a row
    restart_at_s: float | None = None
    ever_served: bool = False
    processes: list[_Process] = field(default_factory=list)  # the old one first


class Supervisor:
    """The machine; times are seconds on the caller's monotonic clock.

    What happens is told by a method, and what it returns is to be done, in order and to the end, before
    anything else is told.

    Args:
        places: How many processes shall serve.
        exclusive: The old and the new process of a place cannot serve at the same time.
        grace_s: How long a process may take to leave.
        delays: Makes the delays of one place.

    Attributes:
        outcome: None while it goes on; then 0 after a request to stop, 1 if it gave up.
    """

    def __init__(
        self, places: int, *, exclusive: bool, grace_s: float, delays: Callable[[], Delays]
    ) -> None:
        self.outcome: int | None = None
        self._exclusive = exclusive
        self._leave_s = grace_s + _OVERTIME_S
        self._places = [_Place(number, delays()) for number in range(places)]
        self._processes: dict[int, _Process] = {}
        self._next_key = 0
        self._stopping = False
        self._gave_up = False
        self._rolling: int | None = None  # the place whose turn it is
        self._to_roll: list[int] = []

    @property
    def serving(self) -> int:
        """How many processes serve."""
        return sum(process.phase is Phase.SERVING for process in self._processes.values())

    @property
    def next_tick(self) -> float | None:
        """When ``tick`` has something to do."""
        due = [place.restart_at_s for place in self._places]
        due += [process.kill_at_s for process in self._processes.values()]
        return min((at_s for at_s in due if at_s is not None), default=None)

    def phase(self, key: int) -> Phase:
        """Of a process that has not exited."""
        return self._processes[key].phase

    # What happens.

    def begin(self) -> Iterator[Effect]:
        """Start them all."""
        for place in self._places:
            yield self._spawn(place)

    def loaded(self, key: int, now: float) -> Iterator[Effect]:
        """The application was imported."""
        process = self._processes[key]
        if process.phase is not Phase.STARTING:
            return
        process.phase = Phase.LOADED
        old = self._old(process)
        if old is None:
            yield Go(key)
        elif self._exclusive:
            yield from self._stop(old, now)
        else:
            yield Go(key)

    def ready(self, key: int, now: float) -> Iterator[Effect]:
        """It serves."""
        process = self._processes[key]
        if process.phase is not Phase.LOADED:
            return
        process.phase = Phase.SERVING
        process.serving_since_s = now
        place = self._places[process.place]
        place.ever_served = True
        old = self._old(process)
        if old is not None:
            yield from self._stop(old, now)
        elif self._rolling == place.number and len(place.processes) == 1:
            yield from self._roll_next()

    def exited(self, key: int, status: int, now: float, *, hopeless: bool = False) -> Iterator[Effect]:
        """It has ended; ``hopeless``: it said that another attempt will not do better."""
        process = self._processes.pop(key)
        place = self._places[process.place]
        place.processes.remove(process)
        if self._stopping:
            self._end_if_empty()
        elif process.phase is Phase.LEAVING:
            yield from self._left(place)
        elif place.processes and place.processes[0].phase is Phase.SERVING:
            # A replacement that came to nothing: its predecessor still serves.
            yield Crashed(key, place.number, status, 1, None)
            yield from self._roll_failed(place)
        else:
            yield from self._crashed(process, place, status, now, hopeless)

    def stop(self, now: float) -> Iterator[Effect]:
        """Asked to stop: the first time all leave in order, then they shall hurry."""
        again, self._stopping = self._stopping, True
        self._rolling = None
        for process in list(self._processes.values()):
            if again:
                process.kill_at_s = min(process.kill_at_s or now + _HURRY_S, now + _HURRY_S)
                yield Hurry(process.key)
            else:
                yield from self._stop(process, now)
        self._end_if_empty()

    def roll(self) -> Iterator[Effect]:
        """Asked to replace every process; during a rolling: again after it, code may have changed."""
        if self._stopping:
            return
        self._to_roll = [place.number for place in self._places]
        if self._rolling is None:
            yield from self._roll_next()

    def tick(self, now: float) -> Iterator[Effect]:
        """Time has passed."""
        for process in self._processes.values():
            if process.kill_at_s is not None and process.kill_at_s <= now:
                process.kill_at_s = None
                yield Kill(process.key)
        for place in self._places:
            if place.restart_at_s is not None and place.restart_at_s <= now and not self._stopping:
                yield self._spawn(place)

    # What is done about it.

    def _spawn(self, place: _Place) -> Spawn:
        place.restart_at_s = None
        process = _Process(self._next_key, place.number)
        self._next_key += 1
        self._processes[process.key] = process
        place.processes.append(process)
        return Spawn(process.key, place.number)

    def _stop(self, process: _Process, now: float) -> Iterator[Effect]:
        if process.phase is not Phase.LEAVING:
            process.phase = Phase.LEAVING
            process.kill_at_s = now + self._leave_s
            yield Stop(process.key)

    def _old(self, process: _Process) -> _Process | None:
        """The predecessor that is still there."""
        first = self._places[process.place].processes[0]
        return None if first is process else first

    def _left(self, place: _Place) -> Iterator[Effect]:
        """The old process has gone, as it was asked to."""
        if not place.processes:  # and so has the new one, meanwhile
            yield self._spawn(place)
            return
        (new,) = place.processes
        if new.phase is Phase.LOADED:
            yield Go(new.key)
        elif new.phase is Phase.SERVING and self._rolling == place.number:
            yield from self._roll_next()

    def _crashed(
        self, process: _Process, place: _Place, status: int, now: float, hopeless: bool
    ) -> Iterator[Effect]:
        if process.phase is Phase.SERVING and now - process.serving_since_s >= STEADY_S:
            place.crashes = 0
            place.delays.reset()
        place.crashes += 1
        if self._is_over(hopeless):
            yield Crashed(process.key, place.number, status, place.crashes, None)
            self._gave_up = True
            yield from self.stop(now)
            return
        delay_s = place.delays.next_delay()
        if not place.processes:
            place.restart_at_s = now + delay_s
        yield Crashed(process.key, place.number, status, place.crashes, delay_s)
        if self._rolling == place.number and not place.processes:
            yield from self._roll_failed(place)

    def _is_over(self, hopeless: bool) -> bool:
        if hopeless and not all(place.ever_served for place in self._places):
            return True
        failing = all(place.crashes >= GIVE_UP_AFTER for place in self._places)
        return failing and not self.serving

    def _roll_next(self) -> Iterator[Effect]:
        """The next place that has a process to replace; others begin with the new code anyway."""
        while self._to_roll:
            place = self._places[self._to_roll.pop(0)]
            if place.processes:
                self._rolling = place.number
                yield self._spawn(place)
                return
        self._rolling = None
        yield RollEnded(None)

    def _roll_failed(self, place: _Place) -> Iterator[Effect]:
        self._rolling = None
        self._to_roll.clear()
        yield RollEnded(place.number)

    def _end_if_empty(self) -> None:
        if not self._processes and self._stopping:
            self.outcome = 1 if self._gave_up else 0
