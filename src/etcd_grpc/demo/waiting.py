"""Waiting for things to happen, and for somebody who wants us to stop waiting.

Ctrl-C, SIGTERM and SIGHUP become one ``KeyboardInterrupt``.  Python may raise it inside a finalizer,
where it is lost; so it is also remembered, and every wait looks whether it was.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from types import FrameType

from etcd_grpc.errors import EtcdGrpcError

__all__ = ["DemoError", "Interrupts", "wait_until"]

_LOOK_EVERY_S = 0.02


class DemoError(EtcdGrpcError):
    """Something that the demonstration needs did not happen; the message says what."""


class Interrupts:
    """Turns the signals that end a program into ``KeyboardInterrupt``, one for each ``raised`` block.

    Outside of such a block they are only noted, so nothing cuts an orderly end short.  A signal that
    the starting shell chose to ignore (nohup, a background job) stays ignored.
    """

    def __init__(self) -> None:
        self.requested = False
        self._armed = False

    def install(self) -> None:
        """Handle the signals from now on, to the end of the process."""
        signal.signal(signal.SIGTERM, self._signalled)
        for number in (signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._signalled)

    def ignore(self) -> None:
        """Nothing is left to be stopped: from now on signals do not even disturb our exit."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)

    @contextlib.contextmanager
    def raised(self) -> Iterator[None]:
        """In this block the first signal raises ``KeyboardInterrupt``."""
        self._armed = True
        try:
            yield
        finally:
            self._armed = False

    def check(self) -> None:
        """Raise ``KeyboardInterrupt`` if there was a signal whose exception got lost."""
        if self.requested:
            raise KeyboardInterrupt

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.requested = True
        if self._armed:
            self._armed = False
            raise KeyboardInterrupt


def wait_until(
    condition: Callable[[], bool], timeout_s: float, what: str, interrupts: Interrupts
) -> None:
    """Wait for ``condition``, at most ``timeout_s`` seconds.

    Raises:
        DemoError: It did not come true; the message says that ``what`` did not happen.
        KeyboardInterrupt: The user wants to stop.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        interrupts.check()
        if time.monotonic() > deadline:
            raise DemoError(f"{what}: not within {timeout_s:g} s")
        time.sleep(_LOOK_EVERY_S)
    interrupts.check()
