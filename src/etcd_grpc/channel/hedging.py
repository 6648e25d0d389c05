"""When a call is sent once more although it has not failed: gRFC A6's hedging.  Pure.

The first attempt begins at once, each further one ``hedgingDelay`` after the one before it has left, or
as soon as one has failed with a non-fatal code.  The first answer ends the call, and so does a fatal
code; the attempts that are still under way are then to be cancelled.

What a server or the throttle says is obeyed for the whole call: "do not send it again"
(``grpc-retry-pushback-ms`` below 0) and too few tokens end hedging; "not before n ms" delays the next
attempt.  One that never left is repeated at once and counts as nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import grpc

from etcd_grpc.balancer.service_config import HedgingPolicy
from etcd_grpc.channel.retry import MAX_TRANSPARENT, Throttle

__all__ = ["Hedging", "Start", "Step"]


@dataclass(frozen=True, slots=True)
class Start:
    """An attempt that is to begin.

    Attributes:
        number: Its own, from 1.
        previous: How many attempts before it a server may have seen.
    """

    number: int
    previous: int


@dataclass(frozen=True, slots=True)
class Step:
    """What is to be done after an event.

    Attributes:
        starts: Begin these; each is answered by ``started`` or ``nowhere``.
        wake_s: Call ``tick`` then; None: not at all.  It replaces what an earlier step said.
        final: The call ends as this attempt did.
        cancel: End these attempts, whose outcome no longer matters.
    """

    starts: tuple[Start, ...] = ()
    wake_s: float | None = None
    final: int | None = None
    cancel: tuple[int, ...] = ()


class Hedging:
    """The attempts of one call.  Not thread-safe.

    Args:
        policy: How often, after how long, and which codes are not fatal.
        throttle: Shared by all calls of a channel; None without throttling.
        deadline_s: No attempt begins at or after it; on the clock of ``now``.
    """

    def __init__(
        self, policy: HedgingPolicy, throttle: Throttle | None, deadline_s: float | None
    ) -> None:
        self._policy = policy
        self._throttle = throttle
        self._deadline_s = deadline_s
        self._numbers = 0
        self._made = 0  # attempts that count, with the first
        self._transparent = 0
        self._placing: set[int] = set()  # begun, and perhaps waiting for an endpoint
        self._under_way: set[int] = set()
        self._due_s: float | None = None  # when the next hedge is to begin
        self._not_before_s = -inf  # as a server has asked
        self._frozen = False  # no further hedge, whatever happens
        self._failed = 0  # the attempt that was the last to fail
        self._final: int | None = None

    def begin(self) -> Step:
        """The call begins."""
        self._made = 1
        return Step((self._start(),))

    def started(self, number: int, now: float) -> Step:
        """Attempt ``number`` has left for an endpoint."""
        self._placing.discard(number)
        if self._final is not None:
            return Step(cancel=(number,))
        self._under_way.add(number)
        if self._placing or self._due_s is not None or not self._more():
            return self._step()
        self._due_s = now + self._policy.delay_s
        return self.tick(now)

    def nowhere(self, number: int) -> Step:
        """Nobody is there to whom attempt ``number`` could be sent."""
        self._placing.discard(number)
        if self._final is not None:
            return Step()
        if self._placing or self._under_way:
            return self._step()
        return self._end(number)

    def tick(self, now: float) -> Step:
        """Time has passed."""
        if self._final is not None or self._due_s is None or now < self._due_s:
            return self._step()
        return self._hedge(now)

    def answered(self, number: int) -> Step:
        """Attempt ``number`` has got its response."""
        self._under_way.discard(number)
        if self._final is not None:
            return Step()
        if self._throttle is not None:
            self._throttle.succeeded()
        return self._end(number)

    def failed(
        self,
        number: int,
        code: grpc.StatusCode,
        pushback_ms: int | None,
        now: float,
        *,
        unseen: bool,
    ) -> Step:
        """Attempt ``number`` has failed.

        Args:
            number: Which one.
            code: How.
            pushback_ms: The server's wish, if it has one.
            now: Seconds.
            unseen: No server has seen it.
        """
        self._under_way.discard(number)
        if self._final is not None:
            return Step()
        self._failed = number
        if unseen and self._in_time(now) and self._transparent < MAX_TRANSPARENT:
            self._transparent += 1
            return self._step(self._start())
        fatal = code not in self._policy.non_fatal
        refused = pushback_ms is not None and pushback_ms < 0
        if self._throttle is not None and (refused or not fatal) and not self._throttle.failed():
            self._frozen = True
        if fatal:
            return self._end(number)
        self._frozen = self._frozen or refused
        if pushback_ms is not None:
            self._not_before_s = max(self._not_before_s, now + pushback_ms / 1000)
        return self._hedge(now)

    def _more(self) -> bool:
        """Whether another hedge may follow some time."""
        return not self._frozen and self._made < self._policy.max_attempts

    def _in_time(self, now: float) -> bool:
        return self._deadline_s is None or now < self._deadline_s

    def _hedge(self, now: float) -> Step:
        """Begin the next attempt now, if there may be one and none is being placed."""
        if self._placing:
            return self._step()
        self._due_s = None
        if self._throttle is not None and not self._throttle.allows():
            self._frozen = True
        if not self._more() or not self._in_time(now):
            return self._step()
        if now < self._not_before_s:
            self._due_s = self._not_before_s
            return self._step()
        self._made += 1
        return self._step(self._start())

    def _start(self) -> Start:
        self._numbers += 1
        self._placing.add(self._numbers)
        return Start(self._numbers, self._made - 1)

    def _step(self, *starts: Start) -> Step:
        """What is known to be done, or the end if nothing more can come."""
        if self._final is not None:
            return Step()
        if self._frozen or (self._due_s is not None and not self._in_time(self._due_s)):
            self._due_s = None
        if self._placing or self._under_way or self._due_s is not None:
            return Step(starts, self._due_s)
        return self._end(self._failed)

    def _end(self, number: int) -> Step:
        self._final = number
        cancel = tuple(sorted(self._under_way))
        self._under_way.clear()
        self._due_s = None
        return Step(final=number, cancel=cancel)
