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
    """

    def __init__(self, source: Iterator[Any], limit: int) -> None:
        self._source = source
        # Guards all of this, and the attempts' state; notified whenever it has changed.
        self._condition = threading.Condition()
        self._buffer = ReplayBuffer(limit, self._condition)
        self._asking = False  # a thread waits for the application
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

    def take(self, attempt: RequestsOfAttempt) -> Request:
        """The next request of ``attempt``; blocks until there is one.

        Raises:
            StopIteration: There are no more, or the attempt is over.
            BaseException: The application's iterator has raised it.
        """
        while True:
            with self._condition:
                self._condition.wait_for(lambda: attempt.over or self._known(attempt.number))
                if attempt.over:
                    raise StopIteration
                if (request := self._buffer.take(attempt.number)) is not None:
                    attempt.number += 1
                    return request
                if self._error is not None:
                    raise self._error
                if self._ended:
                    raise StopIteration
                self._asking = True
            self._ask()

    def _known(self, number: int) -> bool:
        """Whether it need not be waited for that another thread is answered."""
        return not self._asking or self._buffer.has(number)

    def _ask(self) -> None:
        """Wait for the application."""
        message, ended = None, False
        error: BaseException | None = None
        try:
            message = next(self._source)
        except StopIteration:
            ended = True
        except BaseException as raised:  # noqa: BLE001 - the application's; who takes next raises it
            error = raised
        with self._condition:
            self._asking = False
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


class RequestsOfAttempt(Iterator[Request]):
    """What one attempt sends.

    Attributes:
        number: Of the next request; guarded by the condition of ``Requests``, as ``over`` is.
        over: The attempt has ended.
    """

    def __init__(self, requests: Requests) -> None:
        self._requests = requests
        self.number = 0
        self.over = False

    def __next__(self) -> Request:
        return self._requests.take(self)

    def end(self) -> None:
        """The attempt has ended: its thread, if it waits, waits no longer."""
        self._requests.end(self)
