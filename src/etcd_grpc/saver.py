"""When the view of a service is saved, and when the saved one is read.

Beside the session's loop, on threads that live for one file ("etcd-grpc-cache"): a disk that hangs
must not cost a lease.  A change is saved a second later, with all that came meanwhile; the saved view
is read if etcd has not answered within half a second.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

from etcd_grpc.cache import CacheFile, Saved, UnusableError
from etcd_grpc.etcd.beside import in_thread
from etcd_grpc.model import Endpoint
from etcd_grpc.telemetry import emit, events

__all__ = ["Saver"]

_LOAD_AFTER_S = 0.5
_SAVE_AFTER_S = 1.0
_THREAD = "etcd-grpc-cache"


class Saver:
    """Saves and loads the view of one service.  Used on the session's loop only.

    Args:
        file: Where it is.
        service: The service's name.
        loop: The session's loop.
        view: Gives what is to be saved; called on a thread.
        on_loaded: Takes what was saved, and the file's path.
    """

    def __init__(
        self,
        file: CacheFile,
        service: str,
        loop: asyncio.AbstractEventLoop,
        view: Callable[[], Mapping[str, Endpoint]],
        on_loaded: Callable[[Saved, str], None],
    ) -> None:
        self._file = file
        self._service = service
        self._loop = loop
        self._view = view
        self._on_loaded = on_loaded
        self._timer: asyncio.TimerHandle | None = None
        self._loading: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._complaint = ""  # what went wrong last: told once

    def load_soon(self) -> None:
        """Read the file if nobody has called ``save_soon`` or ``close`` in half a second."""
        self._loading = self._loop.call_later(_LOAD_AFTER_S, self._begin, self._load)

    def save_soon(self) -> None:
        """The view has changed."""
        if self._loading is not None:
            self._loading.cancel()
        if self._timer is None:
            self._timer = self._loop.call_later(_SAVE_AFTER_S, self._begin, self._save)

    def close(self) -> None:
        """Save what is not saved yet; nothing is loaded any more."""
        if self._loading is not None:
            self._loading.cancel()
        if self._timer is not None:
            self._timer.cancel()
            self._begin(self._save)

    def _begin(self, work: Callable[[], Saved | None]) -> None:
        if work == self._save:
            self._timer = None
        task = self._loop.create_task(self._run(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, work: Callable[[], Saved | None]) -> None:
        try:
            # Not a daemon: an interpreter that exits lets the file be finished.
            saved = await in_thread(work, _THREAD, daemon=False)
        except UnusableError as error:
            if str(error) != self._complaint:
                self._complaint = str(error)
                emit(events.SnapshotFailed(self._service, str(self._file.path), str(error)))
            return
        self._complaint = ""
        if saved is not None:
            self._on_loaded(saved, str(self._file.path))

    def _load(self) -> Saved | None:
        return self._file.load()

    def _save(self) -> None:
        self._file.save(Saved(tuple(self._view().values()), time.time()))
