"""SIGTERM and SIGINT ask a server to stop, for as long as ``serve`` runs and in the main thread only.

The first one asks it to leave in order, the second one to hurry; from then on, and afterwards, they
are again what they were before.

Python runs a handler between two bytecodes of the main thread.  A signal that comes after the last of
them, and before the system call in which the thread then waits, does not interrupt that call: it is
noticed when the call returns.  So whoever waits for the end of a server waits in slices.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import math
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self, TypeVar

from etcd_grpc.server.lifecycle import Event

__all__ = ["StopSignals", "done", "result", "result_beside"]

R = TypeVar("R")

_SLICE_S = 0.2
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


def result(future: concurrent.futures.Future[R], timeout_s: float | None = None) -> R:
    """What ``future`` comes to.  Signals are noticed meanwhile; an interrupted wait cancels it.

    Raises:
        TimeoutError: Nothing came within ``timeout_s`` seconds; it is cancelled.
    """
    deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s
    try:
        while not future.done() and time.monotonic() < deadline:
            concurrent.futures.wait((future,), min(_SLICE_S, deadline - time.monotonic()))
        return future.result(0)
    except BaseException:
        future.cancel()
        raise


async def result_beside(future: concurrent.futures.Future[R]) -> R:
    """As ``result``, beside the running event loop, which may be idle but for this."""
    wrapped = asyncio.wrap_future(future)
    try:
        await done(wrapped)
        return wrapped.result()
    except BaseException:
        wrapped.cancel()
        raise


async def done(future: asyncio.Future[Any]) -> None:
    """Wait until ``future`` is done.  It is not cancelled if the wait is."""
    while not future.done():
        await asyncio.wait((future,), timeout=_SLICE_S)
