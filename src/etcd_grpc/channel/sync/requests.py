"""The stream of requests of a synchronous call that may be sent again.

gRPC reads a call's requests on a thread of its own, ahead of sending them.  So when an attempt fails,
its thread may be waiting for the application's iterator at that moment.  What comes is kept then, and
the next attempt's thread waits for it in turn: the iterator is never asked by two.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

from etcd_grpc.channel.replay import ReplayBuffer, Request

__all__ = ["Requests"]


class Requests:
    """An application's iterator, for as many attempts as it takes.

    Args:
        source: The iterator.
        limit: How many bytes of it are kept.

    Attributes:
        source: As given.
        asking: A thread waits for the application.
    """

    def __init__(self, source: Iterator[Any], limit: int) -> None:
        self.source = source
        # Guards all of this, and the attempts' state; notified whenever it has changed.
        self._condition = threading.Condition()
        self._buffer = ReplayBuffer(limit, self._condition)
        self.asking = False
        self._ended = False
        self._error: BaseException | None = None

    @property
    def replayable(self) -> bool:
        """Whether another attempt could send all that was sent."""
        with self._condition:
            return self._buffer.replayable

    def attempt(self) -> RequestsOfAttempt:
        """All requests from the first one on, for the next attempt."""
        with self._condition:
            self._buffer.restart()
        return RequestsOfAttempt(self)

    def commit(self) -> None:
        """No attempt follows the current one."""
        with self._condition:
            self._buffer.commit()

    def take(self, attempt: RequestsOfAttempt) -> Request | None:
        """The next request of ``attempt``; blocks until there is one.

        Returns:
            None if there are no more, if the attempt is over, or if it is now ``alone``.

        Raises:
            BaseException: The application's iterator has raised it.
        """
        with self._condition:
            while self.asking and not attempt.over and not self._buffer.has(attempt.number):
                self._condition.wait()
            if attempt.over:
                return None
            if (request := self._buffer.take(attempt.number)) is not None:
                attempt.number += 1
                return request
            if self._error is not None:
                raise self._error
            attempt.alone = self._buffer.committed and not self._ended
            if self._ended or attempt.alone:
                return None
            self.asking = True
        self._ask()
        return self.take(attempt)

    def _ask(self) -> None:
        """Wait for the application."""
        message, ended = None, False
        error: BaseException | None = None
        try:
            message = next(self.source)
        except StopIteration:
            ended = True
        except BaseException as raised:  # noqa: BLE001 - the application's; who takes next raises it
            error = raised
        with self._condition:
            self.asking = False
            self._ended, self._error = ended, error
            if error is not None:
                self._buffer.spoil()
            elif not ended:
                self._buffer.append(message)
            self._condition.notify_all()

    def end(self, attempt: RequestsOfAttempt) -> None:
        """``attempt`` takes no more."""
        with self._condition:
            attempt.over = True
            self._condition.notify_all()


class RequestsOfAttempt:
    """What one attempt sends.  All but ``end`` belongs to the thread that iterates over it.

    Attributes:
        number: Of the next request.
        over: The attempt has ended; guarded by the condition of ``Requests``.
        alone: No other attempt follows it or came before and still waits: the iterator is its own.
    """

    def __init__(self, requests: Requests) -> None:
        self._requests = requests
        self.number = 0
        self.over = False
        self.alone = False

    def __iter__(self) -> Iterator[Any]:
        while (request := self._requests.take(self)) is not None:
            yield request
        if self.alone:
            for message in self._requests.source:  # noqa: UP028 - "yield from" would close it with us
                yield message

    def end(self) -> None:
        """The attempt has ended: its thread, if it waits, waits no longer."""
        self._requests.end(self)
