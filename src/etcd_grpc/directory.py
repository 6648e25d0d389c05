"""The set of endpoints of one service, folded from etcd's entries.  Pure.

The rule: every input yields the *difference* it makes, so the cost of an event is that of the event
and not of the set.  An entry that cannot be understood is not in the set; why is told once for each
revision of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from etcd_grpc.codec import Codec, Entry
from etcd_grpc.errors import StoredDataError
from etcd_grpc.model import Change, Endpoint, Put, Remove, Update

__all__ = ["Directory", "Folded"]


class Folded(NamedTuple):
    """What an input changed, and the complaints about entries that were skipped."""

    update: Update
    complaints: tuple[str, ...]


class Directory:
    """Endpoints by key, in the order in which they were found."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._endpoints: dict[str, Endpoint] = {}
        self._keys: dict[bytes, str] = {}  # raw key -> key of the endpoint it announces
        self._skipped: dict[bytes, int] = {}  # raw key -> revision already complained about
        self.revision = 0

    @property
    def endpoints(self) -> Mapping[str, Endpoint]:
        """A live, read-only view."""
        return MappingProxyType(self._endpoints)

    @property
    def skipped(self) -> int:
        """How many entries stand under the prefix that announce no endpoint."""
        return len(self._skipped)

    def apply(self, entries: Iterable[Entry], revision: int) -> Folded:
        """Fold watched events, in order, that bring the view to ``revision``."""
        changes: list[Change] = []
        complaints: list[str] = []
        for entry in entries:
            self._fold(entry, changes, complaints)
        self.revision = revision
        return Folded(Update(tuple(changes), revision), tuple(complaints))

    def replace(self, entries: Iterable[Entry], revision: int) -> Folded:
        """Fold a complete list of what stands under the prefix at ``revision``.

        The view is never empty in between: the result is the difference only.
        """
        listed = {entry.key: entry for entry in entries}
        vanished = [Entry(k, None, revision) for k in (*self._keys, *self._skipped) if k not in listed]
        return self.apply((*listed.values(), *vanished), revision)

    def _fold(self, entry: Entry, changes: list[Change], complaints: list[str]) -> None:
        endpoint = None
        if entry.value is None:
            self._skipped.pop(entry.key, None)
        else:
            try:
                endpoint = self._codec.decode(entry)
            except StoredDataError as error:
                if self._skipped.get(entry.key) != entry.revision:
                    self._skipped[entry.key] = entry.revision
                    complaints.append(str(error))
        if endpoint is None:
            self._forget(entry.key, changes)
            return
        self._skipped.pop(entry.key, None)
        self._keys[entry.key] = endpoint.key
        if self._endpoints.get(endpoint.key) != endpoint:
            self._endpoints[endpoint.key] = endpoint
            changes.append(Put(endpoint))

    def _forget(self, raw_key: bytes, changes: list[Change]) -> None:
        key = self._keys.pop(raw_key, None)
        if key is not None:
            del self._endpoints[key]
            changes.append(Remove(key))
