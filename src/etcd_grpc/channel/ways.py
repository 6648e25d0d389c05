"""How an endpoint can be connected: under which name, with which certificates.  Pure.

A *way* is a name that the server's certificate must be for, and the generation of our own certificates.
The rule: what worked for one endpoint of the channel is tried first for the next.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

__all__ = ["Way", "Ways"]


class Way(NamedTuple):
    """One way.

    Attributes:
        name: What the certificate must be for; "" is the endpoint's address.
        generation: Of the certificates with which the connection is made.
    """

    name: str
    generation: int


class Ways:
    """The ways of one channel.

    Args:
        names: In the order in which they are tried, at first; at least one.
    """

    def __init__(self, names: tuple[str, ...] = ("",)) -> None:
        self._names = names
        self._generation = 0

    def first(self) -> Way:
        """The one to begin with."""
        return Way(self._names[0], self._generation)

    def untried(self, tried: Collection[Way]) -> Way | None:
        """The next one; None: there is none but these."""
        ways = (Way(name, self._generation) for name in self._names)
        return next((way for way in ways if way not in tried), None)

    def current(self, way: Way) -> bool:
        """Whether it is made with the certificates of today."""
        return way.generation == self._generation

    def worked(self, way: Way) -> None:
        """An endpoint was connected in this way."""
        if way.name != self._names[0]:
            self._names = (way.name, *(name for name in self._names if name != way.name))

    def renew(self) -> None:
        """The certificates have been replaced."""
        self._generation += 1
