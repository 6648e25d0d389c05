"""SIGTERM and SIGINT ask a server to stop, for as long as ``serve`` runs and in the main thread only.

The first one asks it to leave in order, the second one to hurry; from then on, and afterwards, they
are again what they were before.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

from etcd_grpc.server.lifecycle import Event

__all__ = ["StopSignals"]

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """A context manager.

    Args:
        post: Takes ``STOP``, then ``HURRY``; called in a signal handler.
    """

    def __init__(self, post: Callable[[Event], object]) -> None:
        self._post = post
        self._before: dict[int, Any] = {}
        self.received: int | None = None

    def pass_on(self) -> None:
        """Send the signal that was received to whoever handled it before; by default it kills."""
        if self.received is not None:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            signal.raise_signal(self.received)

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.received is None:
            self.received = number
            self._post(Event.STOP)
        else:
            self._restore()
            self._post(Event.HURRY)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before.clear()
