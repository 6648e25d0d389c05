"""What etcd has of one service, for programs that look and do not call."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from etcd_grpc import plane
from etcd_grpc.config import EtcdArgument, EtcdConfig
from etcd_grpc.errors import EtcdUnavailableError
from etcd_grpc.model import Change, Snapshot, check_service
from etcd_grpc.resolver import Resolver, Subscription

__all__ = ["ServiceView"]

_LOOK_EVERY_S = 0.01
_WATCH_S = 1.0


class ServiceView:
    """Follows ``service`` until ``close``; a context manager.  For any thread.

    Raises:
        ConfigurationError: The service's name or the etcd configuration is wrong.
    """

    def __init__(self, service: str, etcd: EtcdArgument = None) -> None:
        self.service = check_service(service)
        self._changed = threading.Event()
        self._closed = False
        self._control = plane.acquire(EtcdConfig.of(etcd))
        session = self._control.session
        self._subscription = Subscription(session.loop, self._on_change)
        try:
            self._resolver = session.run(self._subscribe, self._subscription)
        except BaseException:
            self._control.release()
            raise

    def wait_resolved(self, timeout_s: float) -> Snapshot:
        """The first complete view.

        Raises:
            EtcdUnavailableError: There is none after ``timeout_s`` seconds.
        """
        deadline = time.monotonic() + timeout_s
        while not self._resolver.resolved:
            if time.monotonic() > deadline:
                raise EtcdUnavailableError(f"cannot read service {self.service}: {self.status()}")
            time.sleep(_LOOK_EVERY_S)
        # Listing and watching are two requests: without the second the view would look stale.
        deadline = min(deadline, time.monotonic() + _WATCH_S)
        while not self.snapshot().connected and time.monotonic() < deadline:
            time.sleep(_LOOK_EVERY_S)
        return self.snapshot()

    def wait_change(self, timeout_s: float) -> None:
        """Wait until an endpoint has changed since the last wait, at most ``timeout_s`` seconds."""
        self._changed.wait(timeout_s)
        self._changed.clear()

    def snapshot(self) -> Snapshot:
        """All endpoints now."""
        return self._resolver.snapshot()

    def status(self) -> str:
        """How things stand with etcd, in words."""
        return self._resolver.status()

    def close(self) -> None:
        """Follow no longer.  A second call does nothing."""
        if not self._closed:
            self._closed = True
            self._control.session.run(self._unsubscribe, self._subscription)
            self._control.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # On the session's loop.

    def _subscribe(self, subscription: Subscription) -> Resolver:
        return self._control.subscribe(self.service, subscription)

    def _unsubscribe(self, subscription: Subscription) -> None:
        self._control.unsubscribe(self.service, subscription)

    def _on_change(self, changes: Sequence[Change]) -> None:
        del changes  # the snapshot has them
        self._changed.set()
