"""Work that blocks for a moment, beside the running event loop: on a thread that lives for it alone."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable
from typing import TypeVar

__all__ = ["in_thread"]

R = TypeVar("R")


async def in_thread(
    function: Callable[[], R], name: str = "etcd-grpc-release", *, daemon: bool = True
) -> R:
    """Run what blocks for a moment, such as the end of a session, beside the running event loop."""
    loop = asyncio.get_running_loop()
    done: concurrent.futures.Future[R] = concurrent.futures.Future()

    def run() -> None:
        try:
            done.set_result(function())
        except BaseException as error:  # noqa: BLE001 - for whoever waits
            done.set_exception(error)

    threading.Thread(target=run, name=name, daemon=daemon).start()
    return await asyncio.shield(asyncio.wrap_future(done, loop=loop))
