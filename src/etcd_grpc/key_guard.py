"""The watch of one registered key: what others do to it, told to the registrar."""

from __future__ import annotations

from collections.abc import Sequence

from etcd_grpc.codec import Entry
from etcd_grpc.intent import Intent
from etcd_grpc.telemetry import emit, events
from etcd_grpc.wakeup import Wakeup

__all__ = ["KeyGuard"]


class KeyGuard:
    """A sink: what becomes of the key of one intent."""

    def __init__(self, intent: Intent, changed: Wakeup) -> None:
        self._intent = intent
        self._changed = changed

    def replace(self, entries: Sequence[Entry], revision: int) -> None:
        """The key was listed again, perhaps in another store, whose revisions say nothing."""
        if not entries:
            self._gone()
        self.apply(entries, revision)

    def apply(self, entries: Sequence[Entry], revision: int) -> None:
        """The key was deleted, or put by us or another."""
        del revision  # that of each entry counts
        for entry in entries:
            if entry.value is None:
                if entry.revision > self._intent.revision:
                    self._gone()
            elif entry.value != self._intent.value and entry.revision > self._intent.revision:
                self._intent.doubt()
        self._changed.tell()

    def followed(self, yes: bool, why: str) -> None:
        """The registrar's own requests tell whether etcd answers."""

    def _gone(self) -> None:
        intent = self._intent
        if intent.leaving:
            return
        if intent.stood and not intent.yielded:
            instance = intent.instance
            emit(events.KeyLost(instance.service, instance.address, intent.key.decode()))
        intent.revision = 0
        intent.vacant()
