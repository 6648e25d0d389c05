"""The synchronous call of which several attempts may be under way (gRFC A6: hedging).

``Hedging`` decides; this drives it.  Events come from grpcio's threads (an attempt has ended), from the
dispatcher's loop (an endpoint was found, time has passed) and from the caller.  A caller who blocks
(``finish``) begins the hedges himself when they are due; for a future (``drive``) the loop does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, Self

import grpc

from etcd_grpc.channel.failure import NoEndpointError
from etcd_grpc.channel.hedge_waiter import HedgeWaiter
from etcd_grpc.channel.hedging import Hedging, Step
from etcd_grpc.channel.hedging import Start as Hedge
from etcd_grpc.channel.next_attempt import left_until
from etcd_grpc.channel.retry import never_left, pushback_ms
from etcd_grpc.channel.sync.calls import Start, track
from etcd_grpc.channel.sync.outcome import OutcomeCall, SyncDispatcher, SyncSubchannel

__all__ = ["HedgedCall"]


class HedgedCall(OutcomeCall):
    """One request, one response, and perhaps several servers that are asked.

    Args:
        dispatcher: Where endpoints come from.
        start: Starts an attempt; does not block.
        machine: Decides.
        deadline: On time.monotonic's clock.
        wait_for_ready: As the caller of the RPC asked.
        metadata: Of the call, for policies that look at it.
    """

    def __init__(
        self,
        dispatcher: SyncDispatcher,
        start: Start,
        machine: Hedging,
        *,
        deadline: float | None,
        wait_for_ready: bool,
        metadata: Any = None,
    ) -> None:
        super().__init__(dispatcher, deadline)
        self._start = start
        self._wait_for_ready = wait_for_ready
        self._metadata = metadata
        # All of this is guarded by the condition, which is notified when _wake_s changes, too.
        self._machine = machine
        self._calls: dict[int, tuple[Any, SyncSubchannel]] = {}  # the attempts, by their numbers
        self._errors: dict[int, NoEndpointError] = {}  # of those that found no endpoint
        self._wake_s: float | None = None  # when the machine wants to be told the time
        self._timed = False  # nobody blocks, so timers tell it

    def begin(self, subchannel: SyncSubchannel | None) -> Self:
        """Begin the first attempt, at ``subchannel`` if one was picked.

        Raises:
            grpc.RpcError, ValueError: As the plain channel's method does.
        """
        (first,) = self._machine.begin().starts
        if subchannel is None or not self._begin_on(first, subchannel):
            self._place(first)
        return self

    def drive(self) -> Self:
        """Leave the rest to timers."""
        with self._condition:
            self._timed = True
            wake_s = self._wake_s
        self._set_timer(wake_s)
        return self

    def finish(self) -> Self:
        """Block until the call has ended; hedges begin on this thread."""
        try:
            while True:
                with self._condition:
                    if self._settled:
                        return self
                    left_s = None if self._wake_s is None else self._wake_s - time.monotonic()
                    if left_s is None or left_s > 0:
                        self._condition.wait(left_s)
                        continue
                    due_s = self._wake_s
                self._tick(due_s)
        except BaseException:  # such as KeyboardInterrupt
            self.cancel()
            raise

    def cancel(self) -> bool:
        if not super().cancel():
            return False
        with self._condition:
            calls = list(self._calls.values())
        for call, _ in calls:
            call.cancel()
        return True

    def attempt_ended(self, number: int) -> None:
        with self._condition:
            if self._settled or number not in self._calls:
                return
            call, subchannel = self._calls[number]
        code = call.code()
        if code is grpc.StatusCode.OK:
            self._tell(lambda: self._machine.answered(number))
            return
        wish = pushback_ms(call.trailing_metadata())
        address, connected = subchannel.endpoint.address, subchannel.connected()
        unseen = never_left(code, call.details(), address, connected)
        self._tell(lambda: self._machine.failed(number, code, wish, time.monotonic(), unseen=unseen))

    def _tick(self, due_s: float | None) -> None:
        """What was to be done at ``due_s`` is due, unless another time was named since."""
        if due_s is None or due_s != self._wake_s:
            return
        if self._dispatcher.closed:
            self._settle(NoEndpointError(grpc.StatusCode.CANCELLED, "Channel closed!"))
        else:
            now = max(due_s, time.monotonic())  # a timer may be early by its clock's resolution
            self._tell(lambda: self._machine.tick(now))

    def _tell(self, event: Callable[[], Step]) -> None:
        """Let the machine know, and do what it says."""
        with self._condition:
            if self._settled:
                return
            step = event()
            changed = step.wake_s != self._wake_s
            self._wake_s = step.wake_s
            if changed:
                self._condition.notify_all()
            losers = [self._calls[number][0] for number in step.cancel]
        if step.final is not None:
            self._end(step.final)
        elif changed and (self._timed or self._idle()):
            self._set_timer(step.wake_s)
        for loser in losers:
            loser.cancel()
        for hedge in step.starts:
            self._place(hedge)

    def _idle(self) -> bool:
        """Whether nothing is under way that would end with the channel."""
        with self._condition:
            calls = list(self._calls.values())
        return all(call.done() for call, _ in calls)

    def _end(self, number: int) -> None:
        with self._condition:
            if number in self._calls:
                self._inner = self._calls[number][0]
        self._settle(self._errors.get(number))

    def _place(self, hedge: Hedge) -> None:
        """Begin an attempt at an endpoint not yet tried, or any, or wait for one."""
        with self._condition:
            tried = [subchannel for _, subchannel in self._calls.values()]
        while (subchannel := self._dispatcher.pick(tried, self._metadata)) is not None:
            if self._begin_on(hedge, subchannel):
                return
        self._dispatcher.enqueue(
            HedgeWaiter(
                self.deadline,
                self._wait_for_ready,
                self._metadata,
                partial(self._found, hedge),
                partial(self._missed, hedge),
            )
        )

    def _found(self, hedge: Hedge, subchannel: SyncSubchannel) -> None:
        with self._condition:
            if self._settled:
                return
        try:
            if not self._begin_on(hedge, subchannel):
                self._place(hedge)
        except (grpc.RpcError, ValueError) as error:  # the request could not be serialized
            self._missed(hedge, grpc.StatusCode.INTERNAL, str(error))

    def _missed(self, hedge: Hedge, code: grpc.StatusCode, why: str) -> None:
        with self._condition:
            self._errors[hedge.number] = NoEndpointError(code, why)
        self._tell(lambda: self._machine.nowhere(hedge.number))

    def _begin_on(self, hedge: Hedge, subchannel: SyncSubchannel) -> bool:
        """Begin an attempt; False: the endpoint has just left."""
        try:
            call = self._start(subchannel, left_until(self.deadline), hedge.previous)
        except ValueError:
            if not subchannel.closed:
                raise
            return False
        track(self._dispatcher, subchannel, call)
        with self._condition:
            self._calls[hedge.number] = (call, subchannel)
        self._tell(lambda: self._machine.started(hedge.number, time.monotonic()))
        with self._condition:
            late = self._settled and self._inner is not call
        if late:
            call.cancel()
        elif not call.add_callback(self._leash.when_ended(hedge.number)):
            self.attempt_ended(hedge.number)
        return True

    def _set_timer(self, wake_s: float | None) -> None:
        if wake_s is None:
            return
        leash = self._leash

        def due() -> None:
            call = leash.call()
            if isinstance(call, HedgedCall):
                call._tick(wake_s)

        if not self._dispatcher.later(max(0.0, wake_s - time.monotonic()), due):
            due()
