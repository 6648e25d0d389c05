"""Follows one service in etcd and tells its subscribers what changed.

Watch -> codec -> directory -> subscribers.  One resolver serves any number of channels: the service is
listed and watched once a session.  Everything here runs on the session's loop, except ``snapshot`` and
``status``, which any thread may read.

Without etcd the last view stays: it is marked as not connected and otherwise served as it was.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from types import MappingProxyType

from etcd_grpc.codec import Codec, Entry
from etcd_grpc.directory import Directory, Folded
from etcd_grpc.etcd.session import Session
from etcd_grpc.model import Change, Put, Snapshot

__all__ = ["Resolver", "Subscription"]

_log = logging.getLogger("etcd_grpc.resolver")

Changes = Sequence[Change]


class Subscription:
    """Hands the changes of a service to a callback on the subscriber's own event loop.

    Changes of one key that were not yet picked up are folded into the last one, so a subscriber whose
    loop is blocked costs memory by the number of keys that changed, however often they did; it gets
    the latest state afterwards.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, on_change: Callable[[Changes], None]) -> None:
        self._loop = loop
        self._on_change = on_change
        # Guards _pending, which the control thread fills and the subscriber's loop empties.
        self._lock = threading.Lock()
        self._pending: dict[str, Change] | None = None
        self._closed = False

    def offer(self, changes: Changes) -> None:
        """Take changes, in order; called by the resolver.  None at all still wakes it."""
        with self._lock:
            scheduled = self._pending is not None
            if self._pending is None:
                self._pending = {}
            for change in changes:
                self._pending.pop(change.key, None)  # the last change goes to the end
                self._pending[change.key] = change
        if not scheduled and not self._closed:
            try:
                self._loop.call_soon_threadsafe(self._deliver)
            except RuntimeError:
                if not self._loop.is_closed():
                    raise
                self._closed = True  # the subscriber's loop has ended without closing its channel

    def close(self) -> None:
        """Deliver nothing more."""
        self._closed = True

    def _deliver(self) -> None:
        with self._lock:
            pending, self._pending = self._pending, None
        if pending is not None and not self._closed:
            self._on_change(tuple(pending.values()))


class Resolver:
    """The endpoints of one service, followed while it has subscribers.

    Args:
        session: The session with etcd.
        service: The service's name.
        codec: The layout in which instances are written.
    """

    def __init__(self, session: Session, service: str, codec: Codec) -> None:
        self.service = service
        self._session = session
        self._directory = Directory(codec)
        self._prefix = codec.prefix(service)
        self._subscriptions: list[Subscription] = []
        self._watch: int | None = None
        self._trouble = ""  # why etcd cannot be followed
        self.resolved = False

    # On the session's loop.

    def subscribe(self, subscription: Subscription) -> None:
        """Start with all that is known, then every change."""
        self._subscriptions.append(subscription)
        if self._watch is None:
            self._watch = self._session.watcher.add(self._prefix, self)
        elif self.resolved:
            subscription.offer([Put(endpoint) for endpoint in self._directory.endpoints.values()])

    def unsubscribe(self, subscription: Subscription) -> bool:
        """Stop; return whether nobody is left, in which case the watch has ended."""
        subscription.close()
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)
        if self._subscriptions:
            return False
        if self._watch is not None:
            self._session.watcher.remove(self._watch)
            self._watch = None
        return True

    def replace(self, entries: Sequence[Entry], revision: int) -> None:
        """Sink: a complete list."""
        first = not self.resolved
        self.resolved = True
        self._tell(self._directory.replace(entries, revision), always=first)

    def apply(self, entries: Sequence[Entry], revision: int) -> None:
        """Sink: new events."""
        self._tell(self._directory.apply(entries, revision), always=False)

    def followed(self, yes: bool, why: str) -> None:
        """Sink: whether etcd can be followed."""
        self._trouble = "" if yes else why

    def _tell(self, folded: Folded, *, always: bool) -> None:
        for complaint in folded.complaints:
            _log.warning("skipped an entry of %s that is no endpoint: %s", self.service, complaint)
        if folded.update.changes or always:
            for subscription in self._subscriptions:
                subscription.offer(folded.update.changes)

    # From any thread.

    @property
    def connected(self) -> bool:
        """Whether the view is that of an etcd which answers."""
        return self.resolved and not self._trouble

    def snapshot(self) -> Snapshot:
        """All endpoints now."""
        directory = self._directory
        endpoints = MappingProxyType(dict(directory.endpoints))
        return Snapshot(self.service, endpoints, directory.revision, self.connected)

    def status(self) -> str:
        """How things stand with etcd, for an error message."""
        members = ", ".join(self._session.transport.members)
        if self._trouble:
            return f"etcd at {members} is not connected: {self._trouble}"
        if self.connected:
            return f"etcd at {members} is connected, revision {self._directory.revision}"
        return f"etcd at {members} has not answered yet"
