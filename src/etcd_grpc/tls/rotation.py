"""What becomes of certificates that are replaced on disk.  Pure: readings and the time are arguments.

The rule: only what is complete, belongs together and is valid takes the place of what is in use.
Anything else leaves the last good material where it is, and is told once.  Files are replaced one after
another, so what is wrong at one moment is looked at once more before it counts.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from etcd_grpc.tls.material import Material

__all__ = ["SETTLE_S", "Reading", "Rotation", "Verdict"]

# So long may a rotation take from its first file to its last.
SETTLE_S = 0.25


@dataclass(frozen=True, slots=True)
class Reading:
    """What a look at the files has found.

    Attributes:
        material: What stands there; None if it could not be read.
        problem: Why it cannot be used; "" if it can.
    """

    material: Material | None
    problem: str = ""


class Verdict(enum.Enum):
    """What a reading means."""

    SAME = enum.auto()  # nothing new
    NEW = enum.auto()  # use ``Rotation.material`` from now on
    UNSETTLED = enum.auto()  # look again, after SETTLE_S
    REJECTED = enum.auto()  # say so: it will not be used


class Rotation:
    """The last good material of one set of files.

    Attributes:
        material: What is in use.
        generation: How often it was replaced.
        rejected: How often something was found that cannot be used.
    """

    def __init__(self, material: Material) -> None:
        self.material = material
        self.generation = 0
        self.rejected = 0
        self._suspect: Reading | None = None
        self._suspect_since = 0.0
        self._refused: Reading | None = None

    @property
    def unsettled(self) -> bool:
        """Whether to look again soon."""
        return self._suspect is not None

    def receive(self, reading: Reading, now: float) -> Verdict:
        """A look at ``now`` (seconds on any steady clock) has found ``reading``."""
        if reading.material is not None and not reading.problem:
            self._suspect = self._refused = None
            if reading.material == self.material:
                return Verdict.SAME
            self.material = reading.material
            self.generation += 1
            return Verdict.NEW
        if reading == self._refused:
            self._suspect = None
            return Verdict.SAME
        if reading != self._suspect:
            self._suspect, self._suspect_since = reading, now
        if now - self._suspect_since < SETTLE_S:
            return Verdict.UNSETTLED
        self._suspect, self._refused = None, reading
        self.rejected += 1
        return Verdict.REJECTED
