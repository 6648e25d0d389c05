"""When what etcd says of a service is saved, and when what was saved is read.

Beside the session's loop, on threads that live for one file ("etcd-grpc-cache"): a disk that hangs
must not cost a lease.  A change is saved a second later, with all that came meanwhile; what was saved
is read if etcd has not answered within half a second.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from etcd_grpc.checked_file import UnusableError
from etcd_grpc.etcd.beside import in_thread
from etcd_grpc.telemetry import emit, events

__all__ = ["Saver"]

T = TypeVar("T")

_LOAD_AFTER_S = 0.5
_SAVE_AFTER_S = 1.0
_THREAD = "etcd-grpc-cache"


class _File(Protocol[T]):
    """Where something is kept; its methods may block, and raise UnusableError."""

    @property
    def path(self) -> Path: ...

    def save(self, saved: T) -> None: ...

    def load(self) -> T | None: ...


class Saver(Generic[T]):
    """Saves and loads something about one service.  Used on the session's loop only.

    Args:
        file: Where it is.
        service: The service's name.
        loop: The session's loop.
        current: Gives what is to be saved; called on a thread.
        on_loaded: Takes what was saved, or None, and the file's path; called if ``load_soon`` was, and
            nothing else came before.
    """

    def __init__(
        self,
        file: _File[T],
        service: str,
        loop: asyncio.AbstractEventLoop,
        current: Callable[[], T],
        on_loaded: Callable[[T | None, str], None],
    ) -> None:
        self._file = file
        self._service = service
        self._loop = loop
        self._current = current
        self._on_loaded = on_loaded
        self._timer: asyncio.TimerHandle | None = None
        self._loading: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[object]] = set()
        self._complaint = ""  # what went wrong last: told once
        # Held from reading what is current until it is written, so that the last save is the latest.
        self._saving = threading.Lock()

    def load_soon(self) -> None:
        """Read the file if nobody has called ``save_soon`` or ``close`` in half a second."""
        self._loading = self._loop.call_later(_LOAD_AFTER_S, self._begin_loading)

    def save_soon(self) -> None:
        """There is something new."""
        if self._loading is not None:
            self._loading.cancel()
        if self._timer is None:
            self._timer = self._loop.call_later(_SAVE_AFTER_S, self._save_if_idle)

    def close(self) -> None:
        """Save what is not saved yet; nothing is loaded any more."""
        if self._loading is not None:
            self._loading.cancel()
        if self._timer is not None:
            self._timer.cancel()
            self._begin_saving()

    def _save_if_idle(self) -> None:
        if self._saving.locked():  # a slow disk has enough to do
            self._timer = self._loop.call_later(_SAVE_AFTER_S, self._save_if_idle)
        else:
            self._begin_saving()

    def _begin_saving(self) -> None:
        self._timer = None
        self._begin(self._run(self._save))

    def _begin_loading(self) -> None:
        self._begin(self._load())

    def _begin(self, work: Coroutine[None, None, object]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _load(self) -> None:
        self._on_loaded(await self._run(self._file.load), str(self._file.path))

    async def _run(self, work: Callable[[], T | None]) -> T | None:
        try:
            # Not a daemon: an interpreter that exits lets the file be finished.
            result = await in_thread(work, _THREAD, daemon=False)
        except UnusableError as error:
            if str(error) != self._complaint:
                self._complaint = str(error)
                emit(events.SnapshotFailed(self._service, str(self._file.path), str(error)))
            return None
        self._complaint = ""
        return result

    def _save(self) -> None:
        with self._saving:
            self._file.save(self._current())
