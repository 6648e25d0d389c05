"""The threads on which calls are handled, and whether they end.

A thread cannot be interrupted, and the interpreter waits for the threads of a pool before it ends.  So
``serve`` has to know of handlers that run on after everything else is over.
"""

from __future__ import annotations

import concurrent.futures
import itertools
import logging
import threading
import time

__all__ = ["HandlerThreads"]

_log = logging.getLogger("etcd_grpc.server")

_MOMENT_S = 0.2
_numbers = itertools.count(1)


class HandlerThreads:
    """A pool of threads for handlers.

    Args:
        max_workers: How many; None takes the default of ``ThreadPoolExecutor``.
    """

    def __init__(self, max_workers: int | None) -> None:
        self._name = f"etcd-grpc-handler-{next(_numbers)}"
        self.pool = concurrent.futures.ThreadPoolExecutor(max_workers, thread_name_prefix=self._name)

    def close(self) -> None:
        """Let the threads end, each after what it is doing; what waits for one is dropped."""
        self.pool.shutdown(wait=False, cancel_futures=True)

    def ended(self) -> bool:
        """Whether all of them have ended, or do so in a moment; it is logged if they do not."""
        until = time.monotonic() + _MOMENT_S
        threads = [t for t in threading.enumerate() if t.name.startswith(f"{self._name}_")]
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))
        busy = sum(thread.is_alive() for thread in threads)
        if busy:
            _log.warning("%d calls still run on threads, and hold up the end of the process", busy)
        return not busy
