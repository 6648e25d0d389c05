"""What a policy is: it makes an immutable picker of the endpoints that can take calls.

A new picker is made at every change of that set and published by one assignment; a call reads it
without a lock.  What must outlive a picker (a position, a statistic) belongs to the policy or to the
endpoint, never to the picker.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

__all__ = ["Picker", "Policy"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Picker(Protocol[T_co]):
    """Chooses one of a fixed, non-empty set.  Called from any thread; never blocks."""

    def pick(self) -> T_co:
        """The choice for one call."""

    def __len__(self) -> int:
        """How many there are to choose from."""


class Policy(Protocol):
    """Makes pickers."""

    def picker(self, ready: Sequence[T]) -> Picker[T]:
        """A picker over ``ready``, which is not empty."""
