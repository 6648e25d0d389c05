"""Synchronous calls that outlive the moment in which they are made.

``PendingCall`` is the ``grpc.Call`` and ``grpc.Future`` for which no connected endpoint was there yet,
and for which another attempt may follow; once an attempt is final it answers as that attempt does.
``wait_for_endpoint`` is the same for a caller who blocks.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Self

import grpc

from etcd_grpc.channel.failure import NoEndpointError
from etcd_grpc.channel.next_attempt import delay_after, left_until
from etcd_grpc.channel.retry import Attempts
from etcd_grpc.channel.subchannel import Subchannel
from etcd_grpc.channel.sync.outcome import OutcomeCall, SyncDispatcher, SyncSubchannel
from etcd_grpc.channel.sync.requests import Requests

__all__ = ["PendingCall", "Start", "pause", "track", "wait_for_endpoint"]

_LOOK_AGAIN_S = 1.0
# Starts one attempt, given what is left of the deadline in seconds and how many attempts were before.
Start = Callable[[SyncSubchannel, float | None, int], Any]


def track(dispatcher: SyncDispatcher, subchannel: SyncSubchannel, call: Any) -> None:
    """Count ``call`` as in flight until it has ended, and tell the policy how it did."""
    began = subchannel.began()
    in_flight = subchannel.in_flight
    held = weakref.ref(call)  # a call that the application drops is cancelled

    def ended() -> None:
        in_flight.pop()
        known = held()
        code = grpc.StatusCode.CANCELLED if known is None else known.code()
        dispatcher.observe(subchannel, code, began)

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


def pause(dispatcher: SyncDispatcher, delay_s: float) -> None:
    """Sleep, but no longer than the channel is open."""
    due = threading.Event()
    if delay_s > 0 and dispatcher.later(delay_s, due.set):
        due.wait(delay_s)


class PendingCall(OutcomeCall):
    """A call whose final attempt has perhaps not begun.

    Args:
        dispatcher: Where endpoints come from.
        start: Starts an attempt.
        deadline: On time.monotonic's clock.
        wait_for_ready: As the caller of the RPC asked.
        attempts: None if the call must not be sent twice.
        metadata: Of the call, for policies that look at it.
        requests: What is sent, if that is a stream which may be sent twice.
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
        requests: Requests | None = None,
    ) -> None:
        super().__init__(dispatcher, deadline)
        self._requests = requests
        self.metadata = metadata
        self.wait_for_ready = wait_for_ready
        self._start = start
        self._attempts = attempts
        # All of this is guarded by the condition, which is notified when an attempt begins, too.
        self._number = 0  # of the current attempt
        self._concluded = 0  # the attempt of whose end it was decided what follows
        self._subchannel: SyncSubchannel | None = None
        self._tried: set[SyncSubchannel] = set()

    def begin(self, subchannel: SyncSubchannel | None = None) -> Self:
        """Start on a connected endpoint (``subchannel``, if one was picked), or else wait for one.

        Raises:
            grpc.RpcError, ValueError: As the plain channel's method does.
        """
        while (chosen := subchannel or self._dispatcher.pick(self._tried, self.metadata)) is not None:
            try:
                self._begin_on(chosen)
            except ValueError:
                if not chosen.closed:
                    raise
                subchannel = None
            else:
                return self
        self._dispatcher.enqueue(self)
        return self

    # As a waiter, on the dispatcher's loop.

    def go(self, subchannel: SyncSubchannel) -> None:
        """An endpoint is there."""
        try:
            self.begin(subchannel)
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
        previous = 0 if self._attempts is None else self._attempts.previous
        inner = self._start(subchannel, left_until(self.deadline), previous)
        track(self._dispatcher, subchannel, inner)
        with self._condition:
            self._inner, self._subchannel = inner, subchannel
            self._number += 1
            number, cancelled = self._number, self._settled
            self._condition.notify_all()
        if cancelled:
            inner.cancel()
        elif not inner.add_callback(self._leash.when_ended(number)):
            self.attempt_ended(number)

    def attempt_ended(self, number: int) -> None:
        """Attempt ``number`` has ended: decide, once, whether another one follows it."""
        with self._condition:
            if self._concluded >= number or self._settled or self._left_to_others():
                return
            self._concluded = number
            inner, subchannel = self._inner, self._subchannel
            final = self._is_final(inner)
        delay = None
        if not final and self._attempts is not None and subchannel is not None:
            delay = delay_after(inner, self._attempts, subchannel, self.deadline)
        if delay is None or subchannel is None:
            self._settle(None)
            return
        self._tried.add(subchannel)
        with self._condition:
            self._inner = None
            self._condition.notify_all()
        if not self._dispatcher.later(delay, self._once_more):
            self._once_more()

    def _left_to_others(self) -> bool:
        """Whether somebody else is about to see more of the attempt.  The condition is held."""
        return False

    def _is_final(self, inner: Any) -> bool:
        """Whether nothing can follow an attempt that has ended.  The condition is held."""
        if self._attempts is None or inner.cancelled():
            return True
        succeeded = inner.code() is grpc.StatusCode.OK
        if succeeded and self._dispatcher.throttle is not None:
            self._dispatcher.throttle.succeeded()
        return succeeded or not (self._requests is None or self._requests.replayable)

    def _once_more(self) -> None:
        with self._condition:
            if self._settled:
                return
        try:
            self.begin()
        except (grpc.RpcError, ValueError) as error:
            self._settle(NoEndpointError(grpc.StatusCode.UNAVAILABLE, str(error)))

    def initial_metadata(self) -> Any:
        return self._await(begun=self._attempts is None).initial_metadata()

    # The responses of a stream.

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        final = self._await(begun=True)
        if self._error is not None:
            raise self._error
        return next(final)
