"""Run something on an event loop from any thread, also when that loop may have ended meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

__all__ = ["post"]


def post(loop: asyncio.AbstractEventLoop, callback: Callable[..., object], *arguments: Any) -> bool:
    """Call ``callback`` on ``loop`` soon.

    Returns:
        False if the loop is closed: nothing happens there any more, and nobody waits for it.
    """
    try:
        loop.call_soon_threadsafe(callback, *arguments)
    except RuntimeError:
        if not loop.is_closed():
            raise
        return False
    return True
