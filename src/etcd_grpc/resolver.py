"""Follows one service in etcd and tells its subscribers what changed.

Watch -> codec -> directory -> subscribers.  One resolver serves any number of channels: the service is
listed and watched once a session.  Everything here runs on the session's loop, except ``snapshot`` and
``status``, which any thread may read.

Without etcd the last view stays: it is marked as not connected, with its age, and otherwise served as
it was.  A service that etcd has never been asked for begins with the view in its cache file, if there
is one and etcd does not answer at once.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from types import MappingProxyType

from etcd_grpc.cache import CacheFile, Saved
from etcd_grpc.codec import Codec, Entry
from etcd_grpc.directory import Directory, Folded
from etcd_grpc.etcd.session import Session
from etcd_grpc.guard import DisappearanceGuard
from etcd_grpc.model import Change, Put, Snapshot
from etcd_grpc.posting import post
from etcd_grpc.saver import Saver
from etcd_grpc.telemetry import emit, events

__all__ = ["Resolver", "Subscription"]

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
        if not scheduled and not self._closed and not post(self._loop, self._deliver):
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
        self._loop = session.loop
        config = session.config
        self._directory = Directory(codec, config.address_policy(), DisappearanceGuard())
        self._prefix = codec.prefix(service)
        self._subscriptions: list[Subscription] = []
        self._watch: int | None = None
        self._trouble = ""  # why etcd cannot be followed
        self._stale_since: float | None = None  # on time.monotonic's clock
        self._hold_timer: asyncio.TimerHandle | None = None
        self._saver: Saver[Saved] | None = None
        if config.cache_dir is not None:
            cache = CacheFile(config.cache_dir, config.addresses, service)
            self._saver = Saver(cache, service, self._loop, self._view, self._preload)
        self.resolved = False
        self._listed = False  # by etcd, not only by the cache

    # On the session's loop.

    def subscribe(self, subscription: Subscription) -> None:
        """Start with all that is known, then every change."""
        self._subscriptions.append(subscription)
        if self._watch is None:
            self._watch = self._session.watcher.add(self._prefix, self)
            if self._saver is not None:
                self._saver.load_soon()
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
        if self._hold_timer is not None:
            self._hold_timer.cancel()
        if self._saver is not None:
            self._saver.close()
        return True

    def replace(self, entries: Sequence[Entry], revision: int) -> None:
        """Sink: a complete list."""
        first, known = not self._listed, self.resolved
        self.resolved = self._listed = True
        folded = self._directory.replace(entries, revision, self._loop.time())
        self._tell(folded, always=not known)
        if first:
            emit(events.Resolved(self.service, len(self._directory.endpoints), revision))
        else:
            emit(events.Relisted(self.service, revision, len(folded.update.changes)))

    def apply(self, entries: Sequence[Entry], revision: int) -> None:
        """Sink: new events."""
        self._tell(self._directory.apply(entries, revision, self._loop.time()))

    def followed(self, yes: bool, why: str) -> None:
        """Sink: whether etcd can be followed."""
        self._trouble = "" if yes else why
        since, now = self._stale_since, self._loop.time()
        if yes and since is not None:
            self._stale_since = None
            emit(events.Fresh(self.service, now - since))
        elif not yes and since is None and self.resolved:
            self._stale_since = now
            emit(events.Stale(self.service, why))

    def _view(self) -> Saved:
        """What is saved.  Any thread."""
        return Saved(tuple(self._directory.copy().values()), time.time())

    def _preload(self, saved: Saved | None, path: str) -> None:
        """The cache has been read; of no interest once etcd has answered."""
        if saved is None or self.resolved or self._watch is None:
            return
        self.resolved = True
        age_s = max(0.0, time.time() - saved.saved_at)
        self._stale_since = self._loop.time() - age_s
        self._tell(self._directory.preload(saved.endpoints), always=True)
        emit(events.SnapshotLoaded(self.service, path, len(saved.endpoints), age_s))

    def _tell(self, folded: Folded, *, always: bool = False) -> None:
        for rejected in folded.rejected:
            emit(events.EntryRejected(self.service, *rejected))
        changes = folded.update.changes
        if changes or always:
            for subscription in self._subscriptions:
                subscription.offer(changes)
        if changes:
            emit(events.Changed(self.service, changes, folded.update.revision))
            if self._saver is not None and self._listed:
                self._saver.save_soon()
        if folded.held:
            self._hold(folded.held)

    def _hold(self, count: int) -> None:
        held, until = len(self._directory.held), self._directory.held_until
        if self._hold_timer is None and until is not None:
            left = len(self._directory.endpoints) - held
            emit(events.HoldStarted(self.service, count, left, until - self._loop.time()))
            self._hold_timer = self._loop.call_at(until, self._give_up)

    def _give_up(self) -> None:
        self._hold_timer = None
        folded = self._directory.give_up(self._loop.time())
        self._tell(folded)
        emit(events.HoldEnded(self.service, len(folded.update.changes)))

    # From any thread.

    @property
    def connected(self) -> bool:
        """Whether the view is that of an etcd which answers."""
        return self._listed and not self._trouble

    @property
    def trouble(self) -> str:
        """Why etcd cannot be followed; empty if it can, or if that is not known yet."""
        return self._trouble

    def snapshot(self) -> Snapshot:
        """All endpoints now."""
        directory, since = self._directory, self._stale_since
        return Snapshot(
            self.service,
            MappingProxyType(directory.copy()),
            directory.revision,
            self.connected,
            stale_s=0.0 if since is None else time.monotonic() - since,
            held=directory.held,
            rejected=directory.skipped,
        )

    def status(self) -> str:
        """How things stand with etcd, for an error message."""
        members = ", ".join(self._session.transport.members)
        since = self._stale_since
        if self._trouble:
            age = "" if since is None else f" for {time.monotonic() - since:.0f} s"
            return f"etcd at {members} is not connected{age}: {self._trouble}"
        if self.connected:
            return f"etcd at {members} is connected, revision {self._directory.revision}"
        return f"etcd at {members} has not answered yet"
