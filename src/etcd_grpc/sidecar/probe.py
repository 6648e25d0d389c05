"""Whether a program is well, by the answers of probes.  Pure: answers and times are arguments.

The rule: one answer is no state.  A program is well after ``successes`` good answers in a row, and no
longer well after ``failures`` bad ones in a row.  Until it was well for the first time it is looked at
often, for it is about to be; and if it is not in time, it is given up.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from etcd_grpc.errors import ConfigurationError

__all__ = ["Advice", "ProbeMachine", "ProbeRules"]

_STARTING_INTERVAL_S = 0.1


@dataclass(frozen=True, slots=True)
class ProbeRules:
    """How often to look, and what to make of it.

    Attributes:
        interval_s: Seconds between two probes.
        timeout_s: Seconds after which a probe without an answer counts as a bad one.
        failures: How many bad answers in a row make a program unwell.
        successes: How many good answers in a row make it well.
        start_timeout_s: Seconds within which it must be well for the first time; 0: no limit.

    Raises:
        ConfigurationError: One of them is out of its range.
    """

    interval_s: float = 2.0
    timeout_s: float = 1.0
    failures: int = 3
    successes: int = 1
    start_timeout_s: float = 60.0

    def __post_init__(self) -> None:
        for name in ("interval_s", "timeout_s"):
            value = getattr(self, name)
            if not 0 < value < 1e6:
                raise ConfigurationError(f"{name} is {value!r}; it must be more than 0 seconds")
        for name in ("failures", "successes"):
            value = getattr(self, name)
            if not value >= 1:
                raise ConfigurationError(f"{name} is {value!r}; it must be 1 or more")
        if not 0 <= self.start_timeout_s < 1e9:
            raise ConfigurationError(
                f"start_timeout_s is {self.start_timeout_s!r}; it must be 0 (no limit) or more seconds"
            )


class Advice(enum.Enum):
    """What an answer leads to."""

    NOTHING = enum.auto()
    REGISTER = enum.auto()
    WITHDRAW = enum.auto()
    GIVE_UP = enum.auto()


class ProbeMachine:
    """Counts answers.

    Args:
        rules: What makes a program well or unwell.
        now: The time at which the program started, in seconds of any clock.
    """

    def __init__(self, rules: ProbeRules, now: float) -> None:
        self._rules = rules
        self._began = now
        self._in_a_row = 0  # answers that speak against the present state
        self.well = False
        self.ever_well = False

    @property
    def interval_s(self) -> float:
        """How long to wait before the next probe, in seconds."""
        usual = self._rules.interval_s
        return usual if self.ever_well else min(usual, _STARTING_INTERVAL_S)

    def seen(self, why: str, now: float) -> Advice:
        """Take the answer of a probe: "" if it was good, else what was wrong."""
        good = not why
        if good == self.well:
            self._in_a_row = 0
            return self._patience(now)
        self._in_a_row += 1
        if self._in_a_row < (self._rules.successes if good else self._rules.failures):
            return self._patience(now)
        self._in_a_row = 0
        self.well = good
        self.ever_well = self.ever_well or good
        return Advice.REGISTER if good else Advice.WITHDRAW

    def _patience(self, now: float) -> Advice:
        limit_s = self._rules.start_timeout_s
        late = not self.ever_well and limit_s > 0 and now - self._began >= limit_s
        return Advice.GIVE_UP if late else Advice.NOTHING
