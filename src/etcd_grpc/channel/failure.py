"""The error of a call for which there was no endpoint: a ``grpc.RpcError`` like any other."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, NoReturn

import grpc

__all__ = ["CancelledError", "NoEndpointError"]


class NoEndpointError(grpc.RpcError, grpc.Call, grpc.Future):  # type: ignore[type-arg]
    """A call that never left, with everything that a plain channel's error can be asked."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self._code = code
        self._details = details

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details

    def debug_error_string(self) -> str:
        """What C-core's errors have: one line for a log."""
        return f"{self._code.name}:{self._details}"

    def initial_metadata(self) -> tuple[()]:
        return ()

    def trailing_metadata(self) -> tuple[()]:
        return ()

    def is_active(self) -> bool:
        return False

    def time_remaining(self) -> None:  # type: ignore[override]
        return None

    def add_callback(self, callback: Callable[[], None]) -> bool:
        del callback
        return False

    def cancel(self) -> bool:
        return False

    def cancelled(self) -> bool:
        return False

    def running(self) -> bool:
        return False

    def done(self) -> bool:
        return True

    def result(self, timeout: float | None = None) -> NoReturn:
        del timeout
        raise self

    def exception(self, timeout: float | None = None) -> NoEndpointError:
        del timeout
        return self

    def traceback(self, timeout: float | None = None) -> TracebackType | None:
        del timeout
        try:
            raise self
        except grpc.RpcError as error:
            return error.__traceback__

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        callback(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._code, self._details)

    def __str__(self) -> str:
        return (
            f"<{type(self).__name__} of RPC that terminated with:\n"
            f"\tstatus = {self._code}\n"
            f'\tdetails = "{self._details}"\n'
            f'\tdebug_error_string = "{self.debug_error_string()}"\n'
            ">"
        )

    __repr__ = __str__


class CancelledError(NoEndpointError):
    """Cancelled while there was no attempt."""

    def __init__(self) -> None:
        super().__init__(grpc.StatusCode.CANCELLED, "Locally cancelled by application!")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()

    def cancelled(self) -> bool:
        return True

    def result(self, timeout: float | None = None) -> Any:
        del timeout
        raise grpc.FutureCancelledError

    def exception(self, timeout: float | None = None) -> Any:
        del timeout
        raise grpc.FutureCancelledError

    def traceback(self, timeout: float | None = None) -> Any:
        del timeout
        raise grpc.FutureCancelledError
