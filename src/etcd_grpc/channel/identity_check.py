"""Whether the process that answers at an endpoint's address is the one that registered it.

Only endpoints whose entry says that their server tells its id are asked (``identity.py``).  Each is
asked once for each connection, before it gets calls; and now and then again, a few in a second at the
most, for a connection may have been replaced between two looks at it.  Who does not answer in time
is not judged: a slow server is the right one, and its slowness is the business of others.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Generic, NamedTuple, TypeVar

import grpc

from etcd_grpc.channel.subchannel import Connector, Subchannel, Verdict
from etcd_grpc.identity import told_id
from etcd_grpc.posting import post

__all__ = ["ASK_TIMEOUT_S", "Answer", "IdentityCheck", "answer_of"]

C = TypeVar("C", bound=grpc.Channel | grpc.aio.Channel)

ASK_TIMEOUT_S = 2.0
_AGAIN_S = 10.0  # the health interval
_AT_A_TIME = 32
_AGAIN_A_SWEEP = 20

# A server that gives these, and no id, has looked at the question.  Others, such as UNAUTHENTICATED,
# may come from something that stands before it.
_LOOKED_AT = frozenset({grpc.StatusCode.OK, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED})


class Answer(NamedTuple):
    """To a health check.

    Attributes:
        instance: The id that was told; None if none was.
        conclusive: Whether that says anything.
        failure: What gRPC says of a call that could not be sent.
    """

    instance: str | None
    conclusive: bool
    failure: str = ""


def answer_of(
    code: grpc.StatusCode, details: str | None, initial_metadata: Iterable[Any] | None
) -> Answer:
    """What an answer to a health check says of who gave it."""
    told = told_id(initial_metadata)
    failure = (details or "") if code is grpc.StatusCode.UNAVAILABLE else ""
    return Answer(told, told is not None or code in _LOOKED_AT, failure)


class IdentityCheck(Generic[C]):
    """Asks, a few at a time; on the loop of its set.

    Args:
        loop: The loop.
        connector: Asks in its world.
        judged: Called on the loop when a verdict has changed.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connector: Connector[C],
        judged: Callable[[Subchannel[C]], None],
    ) -> None:
        self._loop = loop
        self._connector = connector
        self._judged = judged
        self._queue: deque[Subchannel[C]] = deque()
        self._under_way: set[Subchannel[C]] = set()
        self._closed = False

    def ask(self, subchannel: Subchannel[C]) -> None:
        """Ask, unless it is being asked."""
        if subchannel.asked_at is None:
            subchannel.asked_at = self._loop.time()
            self._queue.append(subchannel)
            self._next()

    def ask_again(self, subchannels: Iterable[Subchannel[C]]) -> None:
        """Ask those that have not been asked for a while, the longest first, as far as it is fair."""
        if self._queue or self._under_way:
            return
        before = self._loop.time() - _AGAIN_S
        due = [s for s in subchannels if s.endpoint.identified and (s.judged_at or 0.0) < before]
        due.sort(key=lambda subchannel: subchannel.judged_at or 0.0)
        for subchannel in due[:_AGAIN_A_SWEEP]:
            if subchannel.connected():
                self.ask(subchannel)

    def close(self) -> None:
        """Judge nobody any more."""
        self._closed = True
        self._queue.clear()

    def _next(self) -> None:
        while self._queue and len(self._under_way) < _AT_A_TIME:
            subchannel = self._queue.popleft()
            self._under_way.add(subchannel)

            def answered(answer: Answer, asked: Subchannel[C] = subchannel) -> None:
                post(self._loop, self._answered, asked, answer)

            try:
                self._connector.ask(subchannel.channel, answered)
            except ValueError:  # closed meanwhile
                answered(Answer(None, conclusive=False))

    def _answered(self, subchannel: Subchannel[C], answer: Answer) -> None:
        self._under_way.discard(subchannel)
        if self._closed:
            return
        before = subchannel.verdict
        subchannel.asked_at = None
        subchannel.judged_at = self._loop.time()
        if answer.conclusive:
            right = answer.instance == subchannel.endpoint.id
            subchannel.verdict = Verdict.RIGHT if right else Verdict.WRONG
            subchannel.answers = answer.instance
        elif before is Verdict.UNKNOWN:
            subchannel.verdict = Verdict.UNJUDGED
        if subchannel.verdict is not before:
            self._judged(subchannel)
        self._next()
