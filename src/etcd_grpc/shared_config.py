"""The service config that stands in etcd: one for all clients of a service, which an operator changes.

Key ``etcd-grpc/service-config/<service>``, value gRPC's own service-config JSON.  It stands beside the
service's instances and not among them, where other programs would take it for one.

The rule: the last good configuration stays.  What cannot be read is told and changes nothing; a key
that is deleted hands each channel back to its own configuration.  Who may not read the key is served
as if there were none, and it is asked for again by and by.  A service of which etcd has not been heard
begins with what is in its cache file, if there is one and etcd does not answer at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from etcd_grpc.balancer.service_config import ServiceConfig
from etcd_grpc.cache import ConfigFile, SavedConfig
from etcd_grpc.codec.base import MAX_VALUE_BYTES, Entry
from etcd_grpc.errors import ConfigurationError
from etcd_grpc.etcd.session import Session
from etcd_grpc.model import check_service
from etcd_grpc.posting import post
from etcd_grpc.saver import Saver
from etcd_grpc.telemetry import emit, events

__all__ = ["ConfigSubscription", "SharedConfig", "config_key", "parse_stored"]

_PREFIX = "etcd-grpc/service-config/"
_FORBIDDEN_AGAIN_S = 60.0


def config_key(service: str) -> bytes:
    """Where the service config of ``service`` stands.

    Raises:
        ConfigurationError: ``service`` is no service's name.
    """
    return f"{_PREFIX}{check_service(service)}".encode()


def parse_stored(value: bytes) -> ServiceConfig:
    """Read what stands in etcd.

    Raises:
        ConfigurationError: It is no service config.
    """
    if len(value) > MAX_VALUE_BYTES:
        raise ConfigurationError(f"it takes {len(value)} bytes; at most {MAX_VALUE_BYTES} are read")
    try:
        return ServiceConfig(value.decode())
    except UnicodeDecodeError:
        raise ConfigurationError("it is not UTF-8") from None
    except RecursionError:
        raise ConfigurationError("it is nested too deeply") from None


class ConfigSubscription:
    """Hands the latest service config to a callback on the subscriber's own event loop.

    Args:
        loop: The subscriber's.
        on_config: Gets None while there is none in etcd.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, on_config: Callable[[ServiceConfig | None], None]
    ) -> None:
        self._loop = loop
        self._on_config = on_config
        self._latest: ServiceConfig | None = None
        self._closed = False

    def offer(self, config: ServiceConfig | None) -> None:
        """This is the latest; called by ``SharedConfig``."""
        self._latest = config
        if not self._closed and not post(self._loop, self._deliver):
            self._closed = True  # the subscriber's loop has ended without closing its channel

    def close(self) -> None:
        """Deliver nothing more."""
        self._closed = True

    def _deliver(self) -> None:
        if not self._closed:
            self._on_config(self._latest)


class SharedConfig:
    """Follows the service config of one service while it has subscribers; on the session's loop.

    Args:
        session: The session with etcd.
        service: The service's name.
    """

    def __init__(self, session: Session, service: str) -> None:
        self._session = session
        self._service = service
        self._key = config_key(service)
        self._subscriptions: list[ConfigSubscription] = []
        self._watch: int | None = None
        self._again: asyncio.TimerHandle | None = None
        self._answered = False
        self._config: ServiceConfig | None = None
        self._forbidden = False
        self._listed = False  # by etcd, not only by the cache
        self._saver: Saver[SavedConfig] | None = None
        self._loading = False  # whether there may be something in the cache
        self._overdue = False  # whether an answer waits for that
        config = session.config
        if config.cache_dir is not None:
            cache = ConfigFile(config.cache_dir, config.addresses, service)
            self._saver = Saver(cache, service, session.loop, self._current, self._preload)

    def subscribe(self, subscription: ConfigSubscription) -> None:
        """Start with what is known, as soon as it is, then every change."""
        self._subscriptions.append(subscription)
        if self._answered:
            subscription.offer(self._config)
        if self._watch is None and self._again is None:
            self._follow()
            if self._saver is not None:
                self._loading = True
                self._saver.load_soon()

    def unsubscribe(self, subscription: ConfigSubscription) -> bool:
        """Stop; return whether nobody is left, in which case the watch has ended."""
        subscription.close()
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)
        if not self._subscriptions:
            self._stop()
            if self._saver is not None:
                self._saver.close()
        return not self._subscriptions

    # As a sink of the watcher.

    def replace(self, entries: Sequence[Entry], revision: int) -> None:
        """The key was read."""
        if entries:
            self.apply(entries, revision)
        else:
            self._set(None, revision)

    def apply(self, entries: Sequence[Entry], revision: int) -> None:
        """The key was put or deleted."""
        del revision  # that of each entry counts
        for entry in entries:
            if entry.value is None:
                self._set(None, entry.revision)
                continue
            try:
                config = parse_stored(entry.value)
            except ConfigurationError as error:
                emit(events.ServiceConfigRejected(self._service, entry.revision, str(error)[:500]))
                self._answer_without_etcd()
            else:
                self._set(config, entry.revision)

    def followed(self, yes: bool, why: str) -> None:
        """Whether it can be read; if not, nobody waits for it."""
        if yes:
            return
        self._answer_without_etcd()
        if "permission denied" in why:
            self._stop()
            self._again = self._session.loop.call_later(_FORBIDDEN_AGAIN_S, self._follow)
            if not self._forbidden:
                self._forbidden = True
                emit(events.ServiceConfigForbidden(self._service, self._key.decode(), why))

    def _follow(self) -> None:
        self._again = None
        self._watch = self._session.watcher.add_key(self._key, self)

    def _stop(self) -> None:
        if self._watch is not None:
            self._session.watcher.remove(self._watch)
            self._watch = None
        if self._again is not None:
            self._again.cancel()
            self._again = None

    def _current(self) -> SavedConfig:
        """What is saved.  Any thread."""
        config = self._config
        return SavedConfig(None if config is None else config.text, time.time())

    def _preload(self, saved: SavedConfig | None, path: str) -> None:
        """The cache has been read; of no interest once etcd has answered."""
        self._loading = False
        if self._listed or not self._subscriptions:
            return
        if saved is not None and saved.text is not None:
            try:
                self._config = parse_stored(saved.text.encode())
            except ConfigurationError as error:
                emit(events.SnapshotFailed(self._service, path, str(error)[:500]))
            else:
                age_s = max(0.0, time.time() - saved.saved_at)
                emit(events.ServiceConfigLoaded(self._service, path, age_s))
        if self._config is not None or self._overdue:
            self._answered = True
            self._tell()

    def _answer_without_etcd(self) -> None:
        """Nothing in etcd can be used, and nobody is to wait for it longer than for the cache."""
        if self._loading:
            self._overdue = True
        elif not self._answered:
            self._answered = True
            self._tell()

    def _set(self, config: ServiceConfig | None, revision: int) -> None:
        self._forbidden = False
        first, changed = not self._listed, config != self._config
        self._listed, self._loading = True, False
        self._config = config
        if self._saver is not None and (first or changed):
            self._saver.save_soon()
        if changed:
            policy = None if config is None else config.own_policy
            named = "" if policy is None else str(policy)
            emit(events.ServiceConfigChanged(self._service, revision, config is not None, named))
        if changed or not self._answered:
            self._answered = True
            self._tell()

    def _tell(self) -> None:
        for subscription in self._subscriptions:
            subscription.offer(self._config)
