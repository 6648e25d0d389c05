"""The set of endpoints of one service, folded from etcd's entries.  Pure.

The rule: every input yields the *difference* it makes, so the cost of an event is that of the event
and not of the set.  An entry that cannot be understood, or whose address is refused, is not in the set;
why is told once for each revision of it.  Endpoints that vanish with most others stay for a while, see
``guard``.

The time arrives as an argument, in seconds on one monotonic clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from etcd_grpc.address import AddressPolicy
from etcd_grpc.codec import Codec, Entry
from etcd_grpc.errors import StoredDataError
from etcd_grpc.guard import DisappearanceGuard
from etcd_grpc.model import Change, Endpoint, Put, Remove, Update

__all__ = ["Directory", "Folded", "Rejected"]


class Rejected(NamedTuple):
    """An entry that was skipped."""

    key: str
    revision: int
    why: str


class Folded(NamedTuple):
    """What an input changed.

    Attributes:
        update: The changes of the set.
        rejected: Entries that were skipped for the first time in their revision.
        held: How many endpoints are kept from now on although they have vanished.
    """

    update: Update
    rejected: tuple[Rejected, ...]
    held: int = 0


class Directory:
    """Endpoints by key, in the order in which they were found.

    Args:
        codec: The layout.
        addresses: Which addresses are believed.
        guard: Who decides which of the vanished are kept.
    """

    def __init__(self, codec: Codec, addresses: AddressPolicy, guard: DisappearanceGuard) -> None:
        self._codec = codec
        self._addresses = addresses
        self._endpoints: dict[str, Endpoint] = {}
        self._keys: dict[bytes, str] = {}  # raw key -> key of the endpoint it announces
        self._taking: set[str] = set()  # the keys of those in etcd that take calls
        self._skipped: dict[bytes, int] = {}  # raw key -> revision already complained about
        self._guard = guard
        self._preloaded: set[str] = set()  # keys of a view that was not etcd's
        self.revision = 0

    @property
    def endpoints(self) -> Mapping[str, Endpoint]:
        """A live, read-only view."""
        return MappingProxyType(self._endpoints)

    def copy(self) -> dict[str, Endpoint]:
        """All endpoints now; the only thing here that any thread may ask for, as ``held``."""
        return self._endpoints.copy()  # one step of the interpreter

    @property
    def held(self) -> frozenset[str]:
        """The keys of those that have vanished and are kept."""
        return self._guard.held

    @property
    def held_until(self) -> float | None:
        """When ``give_up`` has something to do; None: never."""
        return self._guard.until

    @property
    def skipped(self) -> int:
        """How many entries stand under the prefix that announce no endpoint."""
        return len(self._skipped)

    def apply(self, entries: Iterable[Entry], revision: int, now: float) -> Folded:
        """Fold watched events, in order, that bring the view to ``revision``."""
        changes: list[Change] = []
        rejected: list[Rejected] = []
        for entry in entries:
            self._fold(entry, now, changes, rejected)
        kept = self._guard.newly_held(len(self._taking), now)
        for endpoint in kept:
            self._endpoints[endpoint.key] = endpoint
            changes.append(Put(endpoint))
        self.revision = revision
        return Folded(Update(_net(changes, kept), revision), tuple(rejected), len(kept))

    def preload(self, endpoints: Iterable[Endpoint]) -> Folded:
        """Begin with a view that is not etcd's; the first list takes the place of it, unguarded."""
        accepted = [e for e in endpoints if not self._addresses.refusal(e.address)]
        self._preloaded = {endpoint.key for endpoint in accepted}
        self._endpoints = {endpoint.key: endpoint for endpoint in accepted}
        return Folded(Update(tuple(map(Put, accepted)), self.revision), ())

    def replace(self, entries: Iterable[Entry], revision: int, now: float) -> Folded:
        """Fold a complete list of what stands under the prefix at ``revision``.

        The view is never empty in between: the result is the difference only.
        """
        listed = {entry.key: entry for entry in entries}
        vanished = [Entry(k, None, revision) for k in (*self._keys, *self._skipped) if k not in listed]
        folded = self.apply((*listed.values(), *vanished), revision, now)
        old = self._preloaded - set(self._keys.values())
        self._preloaded = set()
        for key in old:
            del self._endpoints[key]
        changes = (*folded.update.changes, *map(Remove, old))
        return folded._replace(update=Update(changes, revision))

    def give_up(self, now: float) -> Folded:
        """Let those go that have been kept for long enough."""
        dropped = self._guard.given_up(now)
        for endpoint in dropped:
            del self._endpoints[endpoint.key]
        changes = tuple(Remove(endpoint.key) for endpoint in dropped)
        return Folded(Update(changes, self.revision), ())

    def _fold(self, entry: Entry, now: float, changes: list[Change], rejected: list[Rejected]) -> None:
        endpoint = None if entry.value is None else self._decode(entry, rejected)
        if entry.value is None:
            self._skipped.pop(entry.key, None)
        if endpoint is None:
            self._forget(entry.key, now, changes)
            return
        self._skipped.pop(entry.key, None)
        self._keys[entry.key] = endpoint.key
        self._guard.appeared(endpoint.key)
        if endpoint.takes_calls:
            self._taking.add(endpoint.key)
        else:
            self._taking.discard(endpoint.key)
        if self._endpoints.get(endpoint.key) != endpoint:
            self._endpoints[endpoint.key] = endpoint
            changes.append(Put(endpoint))

    def _decode(self, entry: Entry, rejected: list[Rejected]) -> Endpoint | None:
        try:
            endpoint = self._codec.decode(entry)
        except StoredDataError as error:
            why = str(error)
        else:
            why = self._addresses.refusal(endpoint.address)
            if not why:
                return endpoint
        if self._skipped.get(entry.key) != entry.revision:
            self._skipped[entry.key] = entry.revision
            key = entry.key.decode(errors="backslashreplace")
            rejected.append(Rejected(key, entry.revision, why))
        return None

    def _forget(self, raw_key: bytes, now: float, changes: list[Change]) -> None:
        key = self._keys.pop(raw_key, None)
        if key is None:
            return
        endpoint = self._endpoints.pop(key)
        if endpoint.takes_calls:
            self._guard.vanished(endpoint, len(self._taking), now)
            self._taking.discard(key)
        changes.append(Remove(key))


def _net(changes: list[Change], kept: list[Endpoint]) -> tuple[Change, ...]:
    """``changes`` without the removal and return of those that are kept: nobody need notice."""
    keys = {endpoint.key for endpoint in kept}
    removed = {change.key for change in changes if isinstance(change, Remove)} & keys
    return tuple(change for change in changes if change.key not in removed)
