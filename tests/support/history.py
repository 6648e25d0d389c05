"""A history of writes to etcd and of what watchers saw of them, and whether the two agree.  Pure.

Four witnesses: the writers (what etcd acknowledged to them, and where), ``truth`` (every event that a
bare watch on an undisturbed member told from the first revision on), ``final`` (a linearizable range
at the end) and the watchers under test.  The rules are etcd's promises for watches (ordered, unique,
reliable, atomic), carried through to our side of the stream:

- an acknowledged write is in the truth, at its revision and nowhere else; nothing else is, except
  writes whose answer was lost, each of them once at most;
- a watcher is told every event between two of its positions, once, in order, whole revisions only; a
  list replaces its view by etcd's at a revision that is not lower than what it has seen;
- its view is never empty while etcd's is not, and in the end it is etcd's.

What happened after the final range was read is nobody's business here.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from etcd_grpc.codec import Entry

__all__ = ["History", "Kind", "Listed", "Told", "Violation", "Write", "check"]

Changes = frozenset[tuple[bytes, bytes | None]]


class Kind(enum.Enum):
    """What can be wrong."""

    LOST = "lost"
    DOUBLED = "doubled"
    WENT_BACK = "went back"
    INVENTED = "invented"
    TORN = "torn"  # one revision's events were told in parts
    WRONG_LIST = "wrong list"
    EMPTIED = "emptied"
    WRONG_END = "wrong end"


class Violation(NamedTuple):
    """One broken promise: which, towards whom, and what was seen."""

    kind: Kind
    who: str
    what: str


class Write(NamedTuple):
    """What a writer asked for in one request; a value of None deletes.

    ``revision`` is the one at which etcd acknowledged it; 0: the answer was lost, so it may have been
    carried out, now or later, or not.
    """

    changes: Changes
    revision: int


class Listed(NamedTuple):
    """A watcher was given all that stands there at ``revision``."""

    entries: Sequence[Entry]
    revision: int


class Told(NamedTuple):
    """A watcher was told events that bring it to ``revision``."""

    entries: Sequence[Entry]
    revision: int


@dataclass(frozen=True, slots=True)
class History:
    """All that the witnesses say; see the module's docstring.

    Attributes:
        writes: In any order.
        truth: Every event since the first revision, in the order told.
        final: What stood in etcd at ``final_revision``.
        final_revision: Everything later is ignored.
        seen: What each watcher saw, by its name.
    """

    writes: Sequence[Write]
    truth: Sequence[Entry]
    final: Sequence[Entry]
    final_revision: int
    seen: Mapping[str, Sequence[Listed | Told]]


def check(history: History) -> list[Violation]:
    """Return every broken promise; an empty list is what one hopes for."""
    end = history.final_revision
    truth = [entry for entry in history.truth if entry.revision <= end]
    found = [*_in_order("truth", truth), *_explained(history.writes, truth, end)]
    if _fold({}, truth) != _view(history.final):
        found.append(Violation(Kind.WRONG_END, "truth", "its events do not add up to the final range"))
    for name, seen in history.seen.items():
        found += _Follower(name, truth, end).check(seen, history.final)
    return found


def _in_order(who: str, entries: Sequence[Entry]) -> Iterator[Violation]:
    told: set[tuple[bytes, int]] = set()
    last = 0
    for entry in entries:
        if (entry.key, entry.revision) in told:
            yield Violation(Kind.DOUBLED, who, _say(entry))
        elif entry.revision < last:
            yield Violation(Kind.WENT_BACK, who, f"{_say(entry)} after revision {last}")
        told.add((entry.key, entry.revision))
        last = max(last, entry.revision)


def _explained(writes: Sequence[Write], truth: Sequence[Entry], end: int) -> Iterator[Violation]:
    """Every acknowledged write is in the truth, and everything in the truth was written."""
    happened: dict[int, set[tuple[bytes, bytes | None]]] = {}
    for entry in truth:
        happened.setdefault(entry.revision, set()).add((entry.key, entry.value))
    unanswered = Counter(write.changes for write in writes if not write.revision)
    for write in writes:
        if not 0 < write.revision <= end:
            continue
        if frozenset(happened.pop(write.revision, ())) != write.changes:
            what = f"acknowledged at {write.revision}: {sorted(write.changes)}"
            yield Violation(Kind.LOST, "truth", what)
    for revision, changes in happened.items():
        known = frozenset(changes)
        if not unanswered[known]:
            yield Violation(Kind.INVENTED, "truth", f"at {revision}: {sorted(known)}")
        unanswered[known] -= 1


View = Mapping[bytes, tuple[bytes | None, int]]


def _view(entries: Sequence[Entry]) -> View:
    return {entry.key: (entry.value, entry.revision) for entry in entries}


def _fold(view: View, entries: Sequence[Entry]) -> dict[bytes, tuple[bytes | None, int]]:
    folded = dict(view)
    for entry in entries:
        if entry.value is None:
            folded.pop(entry.key, None)
        else:
            folded[entry.key] = (entry.value, entry.revision)
    return folded


@dataclass(slots=True)
class _Follower:
    """Walks the truth beside one watcher."""

    name: str
    truth: Sequence[Entry]
    end: int
    position: int = 0  # the revision up to which the watcher has been told everything
    index: int = 0  # of the first event of the truth after ``position``
    view: View = field(default_factory=dict)
    etcd: View = field(default_factory=dict)  # at ``position``
    found: list[Violation] = field(default_factory=list)

    def check(self, seen: Sequence[Listed | Told], final: Sequence[Entry]) -> list[Violation]:
        told = [e for item in seen if isinstance(item, Told) for e in item.entries]
        self.found += _in_order(self.name, [e for e in told if e.revision <= self.end])
        for item in seen:
            if isinstance(item, Listed):
                self._listed(item)
            else:
                self._told(item)
            if self.etcd and not self.view:
                self._note(Kind.EMPTIED, f"at revision {self.position}")
        if self.view != _view(final):
            self._note(Kind.WRONG_END, _difference(self.view, _view(final)))
        return self.found

    def _listed(self, item: Listed) -> None:
        if item.revision < self.position:
            self._note(Kind.WENT_BACK, f"listed at {item.revision} after {self.position}")
            return
        if item.revision > self.end:
            # Later than the final range: what it says is not ours to judge, only that it came.
            self._advance(self.end)
            self.view = self.etcd
            return
        self._advance(item.revision)
        self.view = _view(item.entries)
        if self.view != self.etcd:
            what = f"at {item.revision}: {_difference(self.view, self.etcd)}"
            self._note(Kind.WRONG_LIST, what)

    def _told(self, item: Told) -> None:
        revision = min(item.revision, self.end)
        entries = [entry for entry in item.entries if entry.revision <= self.end]
        if revision <= self.position:
            if entries:
                self._note(Kind.WENT_BACK, f"told of {_say(entries[0])} after {self.position}")
            return
        before = self.position
        due = self._advance(revision)
        got = set(entries)
        for entry in due:
            if entry not in got:
                whole = not any(other.revision == entry.revision for other in entries)
                self._note(Kind.LOST if whole else Kind.TORN, _say(entry))
        for entry in sorted(got.difference(due), key=lambda e: e.revision):
            kind = Kind.INVENTED if entry.revision > before else Kind.WENT_BACK
            self._note(kind, _say(entry))
        self.view = _fold(self.view, entries)

    def _advance(self, revision: int) -> Sequence[Entry]:
        """Move to ``revision``; return the events on the way."""
        first = self.index
        while self.index < len(self.truth) and self.truth[self.index].revision <= revision:
            self.index += 1
        due = self.truth[first : self.index]
        self.etcd = _fold(self.etcd, due) if due else self.etcd
        self.position = revision
        return due

    def _note(self, kind: Kind, what: str) -> None:
        self.found.append(Violation(kind, self.name, what))


def _say(entry: Entry) -> str:
    value = "deleted" if entry.value is None else entry.value.decode(errors="replace")
    return f"{entry.key.decode(errors='replace')} at {entry.revision}: {value}"


def _difference(view: View, etcd: View) -> str:
    differing = sorted(key for key in view.keys() | etcd.keys() if view.get(key) != etcd.get(key))
    shown = ", ".join(f"{key!r}: {view.get(key)} for {etcd.get(key)}" for key in differing[:3])
    return f"{len(differing)} keys differ: {shown}"
