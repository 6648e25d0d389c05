"""Wait for a condition, with a deadline: what tests do instead of sleeping and hoping."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["wait_until"]

_T = TypeVar("_T")
_POLL_S = 0.01


def wait_until(condition: Callable[[], _T], what: str, timeout_s: float = 10.0) -> _T:
    """Ask ``condition`` until what it returns is true, and return that.

    Raises:
        AssertionError: It was not within ``timeout_s`` seconds; the message says ``what`` was not.
    """
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {timeout_s:g} s: {what} (last: {value!r})")
        time.sleep(_POLL_S)
    return value
