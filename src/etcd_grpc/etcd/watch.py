"""One key prefix followed for ever: the state machine of a watch.  Pure: no I/O, no clock.

The driver calls a method for everything that happens and carries out the effects it returns.  The one
rule: ``revision`` is the last revision up to which everything was delivered, and it moves only on
*delivered* entries, on a complete list, or on etcd's own timed progress notification.  A ``created``
response is no progress: its header names the store's revision, which the watch may not have reached.

    state      event                          effects                      next state
    LISTING    listed                         Replace, Create              CREATING
    LISTING    stream opened or broken        -                            LISTING
    CREATING   created                        -                            WATCHING
    CREATING   created, the store went back   List                         LISTING
    CREATING   anything else                  - (of a watch given up)      CREATING
    WATCHING   events                         Deliver                      WATCHING
    CREATING,  canceled, compacted            List                         LISTING
    WATCHING   canceled, other reason         Refused                      IDLE
               stream broken                  -                            IDLE
    LISTING,   any response                   - (of a watch given up)      the same
    IDLE
    IDLE       stream opened                  Create (from revision + 1)   CREATING

A store "went back" when its revision is lower than what we have seen, or its cluster id is another
one: etcd was restored from a backup or replaced, or the member lags.  A list (linearizable) tells.

Source: etcd's API guarantees for watches (ordered, unique, reliable, atomic, resumable).
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from etcd_grpc.codec import Entry
from etcd_grpc.etcd.rpc_pb2 import Event, WatchResponse

__all__ = ["Create", "Deliver", "Effect", "List", "Refused", "Replace", "State", "WatchMachine"]


@dataclass(frozen=True, slots=True)
class List:
    """Range over the keys and report the answer by ``listed``.

    Attributes:
        compacted: Up to this revision the history is gone; 0: the store went back to ``found``.
        found: The store's revision, where ``compacted`` is 0.
    """

    compacted: int = 0
    found: int = 0


@dataclass(frozen=True, slots=True)
class Create:
    """Ask for a watch of the prefix from ``start_revision`` on the current stream."""

    start_revision: int


@dataclass(frozen=True, slots=True)
class Deliver:
    """Hand on the entries of new events; the view is then that of ``revision``."""

    entries: Sequence[Entry]
    revision: int


@dataclass(frozen=True, slots=True)
class Replace:
    """Hand on the complete content of the prefix at ``revision``."""

    entries: Sequence[Entry]
    revision: int


@dataclass(frozen=True, slots=True)
class Refused:
    """etcd ended this watch for a reason of its own (a stale token, a missing permission)."""

    reason: str


Effect = List | Create | Deliver | Replace | Refused


class State(enum.Enum):
    """Where a watch stands; see the table in this module's docstring."""

    LISTING = enum.auto()
    IDLE = enum.auto()
    CREATING = enum.auto()
    WATCHING = enum.auto()


class WatchMachine:
    """Decides what a watch does next.

    Args:
        since: Revision and cluster id at which the keys are already known: such a watch begins IDLE
            and needs no list.
    """

    def __init__(self, since: tuple[int, int] | None = None) -> None:
        self.state = State.LISTING if since is None else State.IDLE
        self.revision, self._cluster_id = since or (0, 0)
        self._fragments: list[Entry] = []
        self._stream_open = False

    def listed(self, entries: Sequence[Entry], revision: int, cluster_id: int) -> list[Effect]:
        """The prefix was ranged over at ``revision``: everything in it, with nothing after it."""
        if self.state is not State.LISTING:
            return []
        self.revision = revision
        self._cluster_id = cluster_id
        self.state = State.IDLE
        effects: list[Effect] = [Replace(entries, revision)]
        return effects + (self._create() if self._stream_open else [])

    def stream_opened(self) -> list[Effect]:
        """A new watch stream is there."""
        self._stream_open = True
        return self._create() if self.state is State.IDLE else []

    def stream_broken(self) -> None:
        """The watch stream is gone, with every watch and unfinished fragment on it."""
        self._stream_open = False
        self._fragments.clear()
        if self.state is not State.LISTING:
            self.state = State.IDLE

    def receive(self, response: WatchResponse) -> list[Effect]:
        """One response of the stream that carries this watch's id."""
        if self.state in (State.LISTING, State.IDLE):
            return []  # an answer to a watch that we have given up
        if response.canceled:
            return self._canceled(response)
        if response.created:
            return self._created(response)
        if self.state is State.CREATING:
            return []  # a watch's own events come after its ``created``
        entries = [_entry(event) for event in response.events]
        if response.fragment:
            self._fragments += entries
            return []
        return self._events(self._fragments + entries, response.header.revision)

    def _create(self) -> list[Effect]:
        self.state = State.CREATING
        return [Create(self.revision + 1)]

    def _relist(self, why: List) -> list[Effect]:
        self._fragments.clear()
        self.state = State.LISTING
        return [why]

    def _canceled(self, response: WatchResponse) -> list[Effect]:
        if response.compact_revision:
            return self._relist(List(compacted=response.compact_revision))
        self._fragments.clear()
        self.state = State.IDLE
        return [Refused(response.cancel_reason or "no reason given")]

    def _created(self, response: WatchResponse) -> list[Effect]:
        header = response.header
        if header.revision < self.revision or header.cluster_id != self._cluster_id:
            return self._relist(List(found=header.revision))
        self.state = State.WATCHING
        return []

    def _events(self, entries: list[Entry], header_revision: int) -> list[Effect]:
        self._fragments = []
        if not entries:  # a timed progress notification
            self.revision = max(self.revision, header_revision)
            return []
        fresh = [entry for entry in entries if entry.revision > self.revision]
        if not fresh:
            return []
        self.revision = fresh[-1].revision
        return [Deliver(fresh, self.revision)]


def _entry(event: Event) -> Entry:
    kv = event.kv
    return Entry(kv.key, None if event.type == Event.DELETE else kv.value, kv.mod_revision)
