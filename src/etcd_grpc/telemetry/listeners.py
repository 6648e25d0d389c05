"""Who is told of events, and how: each listener on a thread of its own, behind a bounded mailbox.

The rule: a listener that raises or blocks harms nobody else.  Its mailbox drops the oldest events, so
the latest state reaches it as soon as it listens again.  An event is also a line in the log of its
``logger``, at its ``level``.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from types import TracebackType
from typing import Protocol, Self

from etcd_grpc.outage import Outage
from etcd_grpc.telemetry.events import Dropped, Event

__all__ = ["Listener", "Listening", "emit", "listen"]

_log = logging.getLogger("etcd_grpc.telemetry")

_MAILBOX = 1000
_JOIN_S = 1.0


class Listener(Protocol):
    """Whoever wants to know; called in order, on a thread that is the listener's own."""

    def __call__(self, event: Event, /) -> object:
        """Take one event.  What it raises is logged; what it delays is only its own news."""


class Listening:
    """A listener and its mailbox, until ``close``; a context manager."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._outage = Outage()
        self._open()

    def _open(self) -> None:
        self._mailbox: deque[Event] = deque(maxlen=_MAILBOX)
        self._dropped = 0
        self._closed = False
        self._news = threading.Event()
        self._thread = threading.Thread(target=self._run, name="etcd-grpc-listener", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Deliver what is in the mailbox, then nothing more.  A second call does nothing.

        A listener that blocks is waited for at most a second.
        """
        if self in _listening:
            _listening.remove(self)
        self._closed = True
        self._news.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(_JOIN_S)

    def put(self, event: Event) -> None:
        """Take ``event``; called by ``emit``, from any thread."""
        if len(self._mailbox) == _MAILBOX:
            self._dropped += 1
        self._mailbox.append(event)
        self._news.set()

    def reopen(self) -> None:
        """In a forked child: the thread is not there, and the parent has what was in the mailbox."""
        self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self) -> None:
        while True:
            self._news.wait()
            self._news.clear()
            closed = self._closed  # what was put before it was set is still delivered
            while self._mailbox:
                if self._dropped:
                    dropped, self._dropped = self._dropped, 0
                    self._tell(Dropped(dropped))
                self._tell(self._mailbox.popleft())
            if closed:
                return

    def _tell(self, event: Event) -> None:
        try:
            self._listener(event)
        except Exception:  # noqa: BLE001 - the application's code, isolated
            if self._outage.failed(time.monotonic()):
                _log.exception("the listener %r raised, and may again, at: %s", self._listener, event)
        else:
            self._outage.worked(time.monotonic())


# Appending, removing and copying are atomic each, so nobody needs a lock.
_listening: list[Listening] = []


def listen(listener: Listener) -> Listening:
    """Call ``listener`` with every event of this process until the returned handle is closed.

    Args:
        listener: Takes an ``Event``; called in order, on a thread of its own.  If it blocks, the oldest
            of more than 1,000 waiting events are dropped, and it is told how many.

    Returns:
        A handle with ``close``; also a context manager.
    """
    handle = Listening(listener)
    _listening.append(handle)
    return handle


def emit(event: Event, *, logged: bool = True) -> None:
    """Log ``event`` and tell the listeners.  Any thread; never blocks, never raises.

    With ``logged=False`` only the listeners hear of it: the log was told of the like a moment ago.
    """
    logger = logging.getLogger(event.logger)
    if logged and logger.isEnabledFor(event.level):
        logger.log(event.level, "%s", event)
    for handle in tuple(_listening):
        handle.put(event)


def _reopen_all() -> None:
    for handle in _listening:
        handle.reopen()


os.register_at_fork(after_in_child=_reopen_all)
