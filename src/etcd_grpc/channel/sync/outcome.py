"""A synchronous call whose outcome is another call's, once it is known which.

``OutcomeCall`` is the face of a ``grpc.Call`` and ``grpc.Future`` for which attempts are made; how they
are made is its children's.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any

import grpc

from etcd_grpc.channel.dispatch import Dispatcher
from etcd_grpc.channel.failure import CancelledError
from etcd_grpc.channel.next_attempt import left_until
from etcd_grpc.channel.subchannel import Subchannel

__all__ = ["OutcomeCall", "SyncDispatcher", "SyncSubchannel"]

_log = logging.getLogger("etcd_grpc.channel")

SyncSubchannel = Subchannel[grpc.Channel]
SyncDispatcher = Dispatcher[grpc.Channel]


class OutcomeCall(grpc.RpcError, grpc.Call, grpc.Future):  # type: ignore[type-arg]
    """Answers as its final attempt does.

    It is an ``RpcError`` too, as every call of a plain channel that is not awaited on the spot.

    A plain call is cancelled when the application drops it without a callback.  So an attempt knows its
    call only weakly, unless there are callbacks.

    Args:
        dispatcher: Where endpoints come from.
        deadline: On time.monotonic's clock.
    """

    def __init__(self, dispatcher: SyncDispatcher, deadline: float | None) -> None:
        super().__init__()
        self.deadline = deadline
        self._dispatcher = dispatcher
        self._leash = Leash(self)
        # Guards everything below; notified when the call is settled.
        self._condition = threading.Condition()
        self._inner: Any = None  # the current attempt; None: there is none yet, or another one is due
        self._error: Any = None  # why no attempt is the final one
        self._settled = False
        self._callbacks: list[Callable[[], None]] = []

    def attempt_ended(self, number: int) -> None:
        """Attempt ``number`` has ended."""
        raise NotImplementedError

    def _settle(self, error: grpc.RpcError | None, *, elsewhere: bool = False) -> None:
        with self._condition:
            if self._settled:
                return
            self._error = error
            self._settled = True
            callbacks, self._callbacks = self._callbacks, []
            self._leash.pin = None
            self._condition.notify_all()
        _run_callbacks(self._dispatcher, callbacks, elsewhere=elsewhere)

    def _await(self, timeout: float | None = None, *, begun: bool = False) -> Any:
        """Wait until settled (or only begun); return the attempt to ask, or the error in its place.

        Raises:
            grpc.FutureTimeoutError: Not within ``timeout`` seconds.
        """
        with self._condition:
            if not self._condition.wait_for(
                lambda: self._settled or (begun and self._inner is not None), timeout
            ):
                raise grpc.FutureTimeoutError
            return self._error or self._inner

    # grpc.Future

    def cancel(self) -> bool:
        with self._condition:
            inner, settled = self._inner, self._settled
        if settled:
            return False
        if inner is not None:
            if not inner.cancel():
                return False
            self._settle(None, elsewhere=True)
            return True
        self._settle(CancelledError(), elsewhere=True)
        return True

    def cancelled(self) -> bool:
        with self._condition:
            final = self._error or self._inner
            return self._settled and bool(final.cancelled())

    def running(self) -> bool:
        return not self.done()

    def done(self) -> bool:
        with self._condition:
            return self._settled

    def result(self, timeout: float | None = None) -> Any:
        return self._await(timeout).result()

    def exception(self, timeout: float | None = None) -> Exception | None:
        error: Exception | None = self._await(timeout).exception()
        return error

    def traceback(self, timeout: float | None = None) -> TracebackType | None:
        trace: TracebackType | None = self._await(timeout).traceback()
        return trace

    def add_done_callback(self, fn: Callable[[Any], None]) -> None:
        if not self.add_callback(lambda: fn(self)):
            fn(self)

    # grpc.Call

    def is_active(self) -> bool:
        return not self.done()

    def time_remaining(self) -> float | None:  # type: ignore[override]
        return left_until(self.deadline)

    def add_callback(self, callback: Callable[[], None]) -> bool:
        with self._condition:
            if self._settled:
                return False
            self._callbacks.append(callback)
            self._leash.pin = self
            return True

    def initial_metadata(self) -> Any:
        return self._await().initial_metadata()

    def trailing_metadata(self) -> Any:
        return self._await().trailing_metadata()

    def code(self) -> grpc.StatusCode:
        code: grpc.StatusCode = self._await().code()
        return code

    def details(self) -> str:
        details: str = self._await().details()
        return details

    def debug_error_string(self) -> str:
        """C-core's description of the final attempt."""
        text: str = self._await().debug_error_string()
        return text

    def __repr__(self) -> str:
        with self._condition:
            settled, final = self._settled, self._error or self._inner
        return repr(final) if settled else f"<{type(self).__name__} object>"

    __str__ = __repr__


class Leash:
    """How an attempt finds its call, if somebody still wants to know."""

    __slots__ = ("call", "pin")

    def __init__(self, call: OutcomeCall) -> None:
        self.call = weakref.ref(call)
        self.pin: OutcomeCall | None = None

    def when_ended(self, number: int) -> Callable[[], None]:
        """The callback of attempt ``number``."""

        def ended() -> None:
            if (call := self.call()) is not None:
                call.attempt_ended(number)

        return ended


def _run_callbacks(
    dispatcher: SyncDispatcher, callbacks: list[Callable[[], None]], *, elsewhere: bool
) -> None:
    """Call the application's callbacks: here, or where they cannot hold up leases and watches.

    Args:
        dispatcher, callbacks: Whose, and which.
        elsewhere: Not here: the application has called us, perhaps under a lock which they take.
    """
    if callbacks and (elsewhere or dispatcher.on_control_thread()):
        threading.Thread(
            target=_run_all, args=(callbacks,), name="etcd-grpc-callbacks", daemon=True
        ).start()
    else:
        _run_all(callbacks)


def _run_all(callbacks: list[Callable[[], None]]) -> None:
    for callback in callbacks:
        try:
            callback()
        except Exception:  # noqa: BLE001 - the application's code, isolated
            _log.exception("a callback of a call raised")
