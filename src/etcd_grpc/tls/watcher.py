"""Follows certificate files on disk: one thread for all files of the process.

It asks for the files' signatures (inode, size, times) twice a second, which follows symbolic links and
so sees Kubernetes' swap of ``..data``, and compares their contents every ten seconds, for file systems
whose times are too coarse.  inotify, through watchfiles, was measured and costs as much, because its
own loop wakes up as often (either way below 1 ms of processor time a second); and this has nothing to
set up anew when a directory is replaced, no limit on watches, and works on network file systems.

The thread ("etcd-grpc-files") lives while somebody watches something.  A forked child begins with no
watches: they are the parent's.
"""

from __future__ import annotations

import datetime as dt
import os
import threading
import time
from collections.abc import Callable
from typing import ClassVar

from etcd_grpc.certificates import facts_of
from etcd_grpc.errors import ConfigurationError
from etcd_grpc.telemetry import emit, events
from etcd_grpc.tls.material import CertificateFiles, Material
from etcd_grpc.tls.rotation import Reading, Rotation, Verdict

__all__ = ["Watched", "rejections", "watch"]

_LOOK_S = 0.5
_COMPARE_S = 10.0

Signature = tuple[tuple[int, ...], ...]


class Watched:
    """Certificate files that are followed until ``close``; made by ``watch``."""

    # How many unusable contents this process has found, over all files.
    total_rejected: ClassVar[int] = 0

    def __init__(self, files: CertificateFiles, on_change: Callable[[Material], None]) -> None:
        self.files = files
        self._on_change = on_change
        self._signature = _signature(files)  # before reading: what changes meanwhile is seen
        self._rotation = Rotation(files.load())
        self._compared_at = time.monotonic()

    @property
    def material(self) -> Material:
        """The last good one.  Any thread."""
        return self._rotation.material

    @property
    def generation(self) -> int:
        """How often it was replaced."""
        return self._rotation.generation

    @property
    def rejected(self) -> int:
        """How often the files held something that cannot be used."""
        return self._rotation.rejected

    def close(self) -> None:
        """Follow the files no longer; a second call does nothing.  The last one ends the thread."""
        thread = _discard(self)
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def abandon(self) -> None:
        """As ``close``, for a garbage collection, which must not wait for a thread."""
        _discard(self)

    # On the thread.

    def look(self, now: float) -> None:
        """See whether something has changed, and tell."""
        signature = _signature(self.files)
        due = now - self._compared_at >= _COMPARE_S
        if signature == self._signature and not due and not self._rotation.unsettled:
            return
        self._signature, self._compared_at = signature, now
        reading = self._read()
        match self._rotation.receive(reading, now):
            case Verdict.NEW:
                emit(events.CertificateRotated(self._named(), self._described()))
                self._on_change(self.material)
            case Verdict.REJECTED:
                Watched.total_rejected += 1
                emit(events.CertificateRejected(self._named(), reading.problem, self.rejected))
            case Verdict.SAME | Verdict.UNSETTLED:
                pass

    def _read(self) -> Reading:
        material: Material | None = None
        try:
            material = self.files.read()
            if material != self.material:
                self.files.check(material, dt.datetime.now(dt.UTC))
        except (ConfigurationError, ValueError) as error:
            return Reading(material, str(error))
        return Reading(material)

    def _named(self) -> str:
        return str(self.files.cert or self.files.ca)

    def _described(self) -> str:
        facts = facts_of(self.material.cert) if self.material.cert is not None else None
        return str(facts or "")


def watch(files: CertificateFiles, on_change: Callable[[Material], None]) -> Watched:
    """Load ``files`` and follow them.

    Args:
        files: At least one of them.
        on_change: Called with what is to be used from now on, on the thread of this module; it must
            neither block nor raise.

    Raises:
        ConfigurationError: They cannot be used as they are now.
    """
    watched = Watched(files, on_change)
    _add(watched)
    return watched


def rejections() -> int:
    """How many unusable certificates this process has found on disk since it began."""
    return Watched.total_rejected


def _signature(files: CertificateFiles) -> Signature:
    return tuple(map(_stat, files.paths))


def _stat(path: os.PathLike[str]) -> tuple[int, ...]:
    try:
        found = os.stat(path)  # noqa: PTH116 - twice a second
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


class _Thread:
    """The thread, while there is one, and what it looks at."""

    def __init__(self) -> None:
        # Guards the step from no thread to a thread and back.  Reentrant: a garbage collection may
        # close what is watched in the very thread that holds it.
        self.lock = threading.RLock()
        self.watched: list[Watched] = []
        self.thread: threading.Thread | None = None
        self.wake = threading.Event()


_state = _Thread()


def _add(watched: Watched) -> None:
    state = _state
    with state.lock:
        state.watched.append(watched)
        if state.thread is None:
            state.wake = threading.Event()
            state.thread = threading.Thread(
                target=_run, args=(state, state.wake), name="etcd-grpc-files", daemon=True
            )
            state.thread.start()


def _discard(watched: Watched) -> threading.Thread | None:
    """Look at it no longer; the thread that ends with it, if it does."""
    state = _state
    with state.lock:
        if watched not in state.watched:
            return None
        state.watched.remove(watched)
        if state.watched:
            return None
        thread, state.thread = state.thread, None
        state.wake.set()
        return thread


def _run(state: _Thread, ended: threading.Event) -> None:
    while not ended.wait(_LOOK_S):
        now = time.monotonic()
        for watched in tuple(state.watched):  # copying is atomic
            watched.look(now)


def _forget_parent() -> None:
    """In a forked child."""
    global _state  # noqa: PLW0603 - the parent may have held its lock at the moment of the fork
    _state = _Thread()


os.register_at_fork(after_in_child=_forget_parent)
