"""The synchronous calls with many responses that can be sent again.

No second attempt follows one of which the application has seen something: a response message, or the
initial metadata (gRFC A6: the call is committed then).  An attempt can end while its first message is
on its way to the thread that reads it.  So whether another one follows is left to those who read then.
"""

from __future__ import annotations

from typing import Any

import grpc

from etcd_grpc.channel.sync.calls import PendingCall

__all__ = ["ResponseStream"]


class ResponseStream(PendingCall):
    """What ``unary_stream`` returns, and ``stream_stream`` if there is a retry policy."""

    # Guarded by the condition of PendingCall.
    _readers = 0
    _shown = False  # the application has seen something of the current attempt

    def _left_to_others(self) -> bool:
        return self._readers > 0 and not self._shown

    def _is_final(self, inner: Any) -> bool:
        return super()._is_final(inner) or self._shown

    def __next__(self) -> Any:
        if self._shown:
            return next(self._inner)
        while True:
            inner, number = self._enter()
            try:
                response = next(inner)
                self._show()
            except grpc.RpcError as error:
                failure = error
            else:
                return response
            finally:
                self._leave(inner, number)
            if self._is_last(number):
                raise failure

    def initial_metadata(self) -> Any:
        while True:
            final = self._await(begun=True)
            if self._error is not None:
                return self._error.initial_metadata()
            metadata = final.initial_metadata()
            with self._condition:
                number = self._number if self._inner is final else 0
                if self._concluded < number and not final.done():
                    self._show()
            if self._shown or (number and self._is_last(number)):
                return metadata

    def _show(self) -> None:
        """The application sees something of the current attempt: the call is committed."""
        self._shown = True
        if self._requests is not None:
            self._requests.commit()

    def _enter(self) -> tuple[Any, int]:
        """Wait for an attempt and read it; returns it and its number.

        Raises:
            grpc.RpcError: There will be none.
        """
        with self._condition:
            self._condition.wait_for(lambda: self._settled or self._inner is not None)
            if self._error is not None:
                raise self._error
            self._readers += 1
            return self._inner, self._number

    def _leave(self, inner: Any, number: int) -> None:
        """This thread reads no more."""
        with self._condition:
            self._readers -= 1
        if inner.done():
            self.attempt_ended(number)

    def _is_last(self, number: int) -> bool:
        """Whether no attempt follows one that has ended; waits until that is decided."""
        with self._condition:
            self._condition.wait_for(
                lambda: self._settled or self._inner is None or self._number > number
            )
            return self._settled and self._error is None and self._number == number
