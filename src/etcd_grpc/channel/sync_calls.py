"""Synchronous calls that outlive the moment in which they are made.

``PendingCall`` is the ``grpc.Call`` and ``grpc.Future`` for which no connected endpoint was there yet,
and for which another attempt may follow; once an attempt is final it answers as that attempt does.
``wait_for_endpoint`` is the same for a caller who blocks.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

import grpc

from etcd_grpc.channel.dispatch import Dispatcher, delay_after, left_until
from etcd_grpc.channel.failure import NoEndpointError
from etcd_grpc.channel.retry import Attempts
from etcd_grpc.channel.subchannel import Subchannel

__all__ = ["PendingCall", "track", "wait_for_endpoint"]

_log = logging.getLogger("etcd_grpc.channel")

SyncSubchannel = Subchannel[grpc.Channel]
SyncDispatcher = Dispatcher[grpc.Channel]
_LOOK_AGAIN_S = 1.0
# Starts one attempt, given what is left of the deadline in seconds.
Start = Callable[[SyncSubchannel, float | None], Any]


def track(dispatcher: SyncDispatcher, subchannel: SyncSubchannel, call: Any) -> None:
    """Count ``call`` as in flight until it has ended, and tell the policy how it did."""
    began = subchannel.began()
    in_flight = subchannel.in_flight

    def ended() -> None:
        in_flight.pop()
        dispatcher.observe(subchannel, call.code(), began)

    callback = ended if dispatcher.observes else in_flight.pop
    if not call.add_callback(callback):
        callback()


class _Blocked:
    """A waiter whose thread sleeps."""

    def __init__(self, deadline: float | None, wait_for_ready: bool, metadata: Any) -> None:
        self.metadata = metadata
        self.deadline = deadline
        self.wait_for_ready = wait_for_ready
        self.served = threading.Event()
        self.outcome: SyncSubchannel | NoEndpointError | None = None

    def go(self, subchannel: SyncSubchannel) -> None:
        self.outcome = subchannel
        self.served.set()

    def fail(self, code: grpc.StatusCode, why: str) -> None:
        self.outcome = NoEndpointError(code, why)
        self.served.set()


def wait_for_endpoint(
    dispatcher: SyncDispatcher, deadline: float | None, wait_for_ready: bool, metadata: Any = None
) -> SyncSubchannel:
    """Block until there is a connected endpoint.

    Raises:
        NoEndpointError: There is none, and none in sight, or the deadline has come.
    """
    waiter = _Blocked(deadline, wait_for_ready, metadata)
    dispatcher.enqueue(waiter)
    while not waiter.served.wait(_LOOK_AGAIN_S):
        if dispatcher.closed:  # perhaps in the very moment in which we were enqueued
            raise NoEndpointError(grpc.StatusCode.CANCELLED, "Channel closed!")
    if not isinstance(waiter.outcome, Subchannel):
        assert waiter.outcome is not None
        raise waiter.outcome
    return waiter.outcome


class PendingCall(grpc.Call, grpc.Future):  # type: ignore[type-arg]
    """A call whose final attempt has perhaps not begun.

    Args:
        dispatcher: Where endpoints come from.
        start: Starts an attempt.
        deadline: On time.monotonic's clock.
        wait_for_ready: As the caller of the RPC asked.
        attempts: None if the call must not be sent twice (its requests are a stream).
        metadata: Of the call, for policies that look at it.
    """

    def __init__(
        self,
        dispatcher: SyncDispatcher,
        start: Start,
        *,
        deadline: float | None,
        wait_for_ready: bool,
        attempts: Attempts | None,
        metadata: Any = None,
    ) -> None:
        self.metadata = metadata
        self.deadline = deadline
        self.wait_for_ready = wait_for_ready
        self._dispatcher = dispatcher
        self._start = start
        self._attempts = attempts
        # Guards everything below; notified when an attempt begins and when the call is settled.
        self._condition = threading.Condition()
        self._inner: Any = None
        self._subchannel: SyncSubchannel | None = None
        self._tried: set[SyncSubchannel] = set()
        self._error: Any = None  # why no attempt is the final one
        self._settled = False
        self._callbacks: list[Callable[[], None]] = []

    def begin(self) -> PendingCall:
        """Start on a connected endpoint, or else wait for one."""
        subchannel = self._dispatcher.pick(self._tried, self.metadata)
        if subchannel is None:
            self._dispatcher.enqueue(self)
        else:
            self._begin_on(subchannel)
        return self

    # As a waiter, on the dispatcher's loop.

    def go(self, subchannel: SyncSubchannel) -> None:
        """An endpoint is there."""
        try:
            self._begin_on(subchannel)
        except grpc.RpcError as error:  # the request could not be serialized
            self._settle(error)
        except ValueError as error:
            self._settle(NoEndpointError(grpc.StatusCode.UNAVAILABLE, str(error)))

    def fail(self, code: grpc.StatusCode, why: str) -> None:
        """There is none."""
        self._settle(NoEndpointError(code, why))

    # The attempts.

    def _begin_on(self, subchannel: SyncSubchannel) -> None:
        with self._condition:
            if self._settled:  # cancelled while waiting
                return
        inner = self._start(subchannel, left_until(self.deadline))
        track(self._dispatcher, subchannel, inner)
        with self._condition:
            self._inner, self._subchannel = inner, subchannel
            cancelled = self._settled
            self._condition.notify_all()
        if cancelled:
            inner.cancel()
        elif not inner.add_callback(self._attempt_ended):
            self._attempt_ended()

    def _attempt_ended(self) -> None:
        inner, subchannel = self._inner, self._subchannel
        if self._attempts is not None and subchannel is not None and not inner.cancelled():
            throttle = self._dispatcher.throttle
            if inner.code() is grpc.StatusCode.OK:
                if throttle is not None:
                    throttle.succeeded()
            elif (delay := delay_after(inner, self._attempts, subchannel, self.deadline)) is not None:
                self._tried.add(subchannel)
                if self._dispatcher.later(delay, self._once_more):
                    return
        self._settle(None)

    def _once_more(self) -> None:
        with self._condition:
            if self._settled:
                return
        try:
            self.begin()
        except (grpc.RpcError, ValueError):
            self._settle(None)  # the failure of the last attempt stands

    def _settle(self, error: grpc.RpcError | None) -> None:
        with self._condition:
            if self._settled:
                return
            self._error = error
            self._settled = True
            callbacks, self._callbacks = self._callbacks, []
            self._condition.notify_all()
        if callbacks and self._dispatcher.on_control_thread():
            # The application's code must not run on the thread that keeps leases and watches.
            threading.Thread(
                target=_run_all, args=(callbacks,), name="etcd-grpc-callbacks", daemon=True
            ).start()
        else:
            _run_all(callbacks)

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
            inner.cancel()
            self._settle(None)
            return True
        self._settle(_CancelledError(grpc.StatusCode.CANCELLED, "Locally cancelled by application!"))
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
            return True

    def initial_metadata(self) -> Any:
        return self._await(begun=self._attempts is None).initial_metadata()

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

    # The responses of a stream.

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        final = self._await(begun=True)
        if isinstance(final, NoEndpointError):
            raise final
        return next(final)


class _CancelledError(NoEndpointError):
    """Cancelled before any attempt began."""

    def cancelled(self) -> bool:
        return True

    def result(self, timeout: float | None = None) -> Any:
        del timeout
        raise grpc.FutureCancelledError

    def exception(self, timeout: float | None = None) -> Any:
        del timeout
        raise grpc.FutureCancelledError


def _run_all(callbacks: list[Callable[[], None]]) -> None:
    for callback in callbacks:
        try:
            callback()
        except Exception:  # noqa: BLE001 - the application's code, isolated
            _log.exception("a callback of a call raised")
