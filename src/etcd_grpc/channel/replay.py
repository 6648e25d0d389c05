"""The requests that a call has taken from the application so far, in case it is sent again.  Pure.

After gRFC A6 what was sent is kept until the call is *committed*: until the application has seen
something of an answer, or until more than a limit is kept.  From then on a request is forgotten when it
is taken, and a failure is final.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

__all__ = ["DEFAULT_LIMIT", "ReplayBuffer", "Request", "replayed"]

Serializer = Callable[[Any], bytes] | None

DEFAULT_LIMIT = 256 * 1024  # bytes a call: C-core's for grpc.per_rpc_retry_buffer_size


class Request:
    """One message; what is made of it first is what every attempt sends.

    An application may change a message once it is asked for the next one: it was serialized by then.
    """

    __slots__ = ("_buffer", "_message", "_raw")

    def __init__(self, buffer: ReplayBuffer, message: Any) -> None:
        self._buffer = buffer
        self._message = message
        self._raw: bytes | None = None

    def serialize(self, serializer: Serializer) -> bytes:
        """The message as bytes.

        Raises:
            Exception: Whatever the application's serializer raises; the call must not be sent again.
        """
        if (known := self._raw) is not None:
            return known
        try:
            raw: bytes = self._message if serializer is None else serializer(self._message)
        except Exception:
            self._buffer.spoil()
            raise
        with self._buffer.guard:
            if self._raw is None:  # the thread of an attempt that is over may have been at it too
                self._raw, self._message = raw, None
                self._buffer.count(len(raw))
            return self._raw


class ReplayBuffer:
    """What is kept of one call's requests.

    Args:
        limit: How many bytes of serialized requests are kept for another attempt.
        guard: Held by whoever uses it; reentrant.  A null context where no threads share it.

    Attributes:
        committed: No attempt follows the current one.
    """

    def __init__(self, limit: int, guard: AbstractContextManager[Any]) -> None:
        self.guard = guard
        self._limit = limit
        self._size = 0
        self._kept: dict[int, Request] = {}
        self._end = 0  # the number of the next request of the application
        self._position = 0  # and of the next one that the current attempt takes
        self.committed = False
        self._spoiled = False

    @property
    def replayable(self) -> bool:
        """Whether another attempt could send all that this one has sent."""
        return not (self.committed or self._spoiled)

    def restart(self) -> None:
        """Another attempt begins: it takes all from the first one on."""
        self._position = 0

    def append(self, message: Any) -> None:
        """The application has given this one."""
        self._kept[self._end] = Request(self, message)
        self._end += 1

    def has(self, number: int) -> bool:
        """Whether request ``number``, counted from 0, is there."""
        return number < self._end

    def take(self, number: int) -> Request | None:
        """Request ``number``, the next one of the current attempt; None: it is not there yet."""
        if not self.has(number):
            return None
        self._position = number + 1
        return self._kept.pop(number) if self.committed else self._kept[number]

    def count(self, size: int) -> None:
        """So many bytes more are kept; past the limit the call is committed."""
        self._size += size
        if self._size > self._limit:
            self.commit()

    def commit(self) -> None:
        """No attempt follows the current one: forget what it has taken."""
        if not self.committed:
            self.committed = True
            for number in range(self._position):
                del self._kept[number]

    def spoil(self) -> None:
        """The application's own code has failed, in the midst of its requests."""
        self._spoiled = True


def replayed(serializer: Serializer) -> Callable[[Any], Any]:
    """The serializer for what a ``ReplayBuffer`` hands out, and for what comes after the commit."""

    def serialize(request: Any) -> Any:
        if type(request) is Request:
            return request.serialize(serializer)
        return request if serializer is None else serializer(request)

    return serialize
