"""What a signal, a probe, the passing of time and the program's end lead to.  Pure: effects come out.

The order that loses no call::

    RUNNING --stop signal--> DRAINING --clients have moved--> STOPPING --the program ends--> ENDED
                 marked as draining        deleted, and the signal sent

A second stop signal, or a grace that is over, kills (KILLED).  A program that ends by itself is
deleted at once, from wherever that finds us.  Every other signal is the program's own affair.
"""

from __future__ import annotations

import enum
import signal
from dataclasses import dataclass

from etcd_grpc.sidecar.probe import Advice

__all__ = [
    "Drain",
    "Effect",
    "Finish",
    "Kill",
    "Life",
    "Phase",
    "Register",
    "Send",
    "StartGrace",
    "Withdraw",
    "forwarded_signals",
    "stop_signals",
]

_STOP = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGQUIT})
_FAILURE = 1


class Phase(enum.Enum):
    """How far the end has come."""

    RUNNING = enum.auto()
    DRAINING = enum.auto()
    STOPPING = enum.auto()
    KILLED = enum.auto()
    ENDED = enum.auto()


@dataclass(frozen=True, slots=True)
class Register:
    """The program is to be found in etcd."""


@dataclass(frozen=True, slots=True)
class Withdraw:
    """It is to be deleted from etcd, without a moment for the clients: there is nobody to call."""


@dataclass(frozen=True, slots=True)
class Drain:
    """It is to be marked as draining, and deleted when the clients have had time to move away."""


@dataclass(frozen=True, slots=True)
class Send:
    """The program gets this signal."""

    number: int


@dataclass(frozen=True, slots=True)
class StartGrace:
    """The time begins that the program has for its end."""


@dataclass(frozen=True, slots=True)
class Kill:
    """The program, and what it has started, get SIGKILL."""


@dataclass(frozen=True, slots=True)
class Finish:
    """The sidecar ends with this exit status."""

    status: int


Effect = Register | Withdraw | Drain | Send | StartGrace | Kill | Finish


def stop_signals(*, has_program: bool) -> frozenset[int]:
    """The signals that mean: come to an end.

    Without a program there is nobody to whom SIGHUP could mean anything else.
    """
    return frozenset(_STOP if has_program else _STOP | {signal.SIGHUP})


def forwarded_signals() -> frozenset[int]:
    """The signals that are passed on to a program: all to which programs give a meaning."""
    named = {signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH, signal.SIGCONT}
    return frozenset(named | set(range(signal.SIGRTMIN, signal.SIGRTMAX + 1)))


class Life:
    """The machine.  Each method is something that happened, and returns what is to be done, in order.

    Args:
        has_program: False: what is registered runs elsewhere, and is never ended.
    """

    def __init__(self, *, has_program: bool) -> None:
        self._has_program = has_program
        self._stop_signal: int = signal.SIGTERM
        self._own_status: int | None = None  # in place of the program's
        self.phase = Phase.RUNNING

    def advised(self, advice: Advice) -> list[Effect]:
        """A probe was answered."""
        if self.phase is not Phase.RUNNING:
            return []
        match advice:
            case Advice.REGISTER:
                return [Register()]
            case Advice.WITHDRAW:
                return [Withdraw()]
            case Advice.GIVE_UP:
                return self.failed()
        return []

    def failed(self) -> list[Effect]:
        """It cannot go on: the program is never well, or cannot be registered."""
        if self.phase is not Phase.RUNNING:
            return []
        self._own_status = _FAILURE
        return [Withdraw(), *self._stop()]

    def signalled(self, number: int) -> list[Effect]:
        """A signal has come."""
        if number not in stop_signals(has_program=self._has_program):
            alive = self._has_program and self.phase is not Phase.ENDED
            return [Send(number)] if alive else []
        if self.phase is Phase.RUNNING:
            self._stop_signal = number
            self.phase = Phase.DRAINING
            return [Drain()]
        if self.phase in {Phase.DRAINING, Phase.STOPPING}:  # somebody is in a hurry
            return [Withdraw(), *self._kill()]
        return []

    def drained(self) -> list[Effect]:
        """The clients have had their time."""
        return self._stop() if self.phase is Phase.DRAINING else []

    def grace_over(self) -> list[Effect]:
        """The program has had its time."""
        return self._kill() if self.phase is Phase.STOPPING else []

    def ended(self, status: int) -> list[Effect]:
        """The program has ended with this exit status."""
        self.phase = Phase.ENDED
        return [Withdraw(), Finish(status if self._own_status is None else self._own_status)]

    def _stop(self) -> list[Effect]:
        if not self._has_program:
            return self._finish()
        self.phase = Phase.STOPPING
        # A program that is stopped (SIGSTOP) cannot obey before it goes on.
        return [Send(signal.SIGCONT), Send(self._stop_signal), StartGrace()]

    def _kill(self) -> list[Effect]:
        if not self._has_program:
            return self._finish()
        self.phase = Phase.KILLED
        return [Kill()]

    def _finish(self) -> list[Effect]:
        self.phase = Phase.ENDED
        return [Finish(self._own_status or 0)]
