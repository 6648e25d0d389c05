"""A session with one etcd cluster: the control thread and what lives on it.

Everything about etcd happens on one event loop in one thread of its own ("etcd-grpc-control"): leases,
watches, timers.  Nothing there needs a lock, and an application's blocked event loop or busy threads
cannot lose a lease.  Requests are synchronous gRPC calls whose completion is posted to the loop;
the watch stream is read by one more thread.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import random
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from etcd_grpc.config import EtcdConfig
from etcd_grpc.etcd.transport import Transport
from etcd_grpc.etcd.watcher import Watcher

__all__ = ["Session"]

T = TypeVar("T")
R = TypeVar("R")


class Session:
    """The control loop with a transport and a watcher; ``close`` ends its threads.

    Raises:
        ConfigurationError: A certificate file cannot be read.
    """

    def __init__(self, config: EtcdConfig, rng: random.Random | None = None) -> None:
        self._owner = os.getpid()
        self.config = config
        self.rng = rng or random.Random()  # noqa: S311 - jitter and spreading, no secret
        self.loop = asyncio.new_event_loop()
        try:
            self.transport = Transport(config, self.loop, self.rng)
        except BaseException:
            self.loop.close()
            raise
        self.watcher = Watcher(self.transport, self.loop, self.rng)
        self.thread = threading.Thread(target=self._run, name="etcd-grpc-control", daemon=True)
        self.thread.start()

    @property
    def closed(self) -> bool:
        """Whether its threads have ended, or are those of a parent process."""
        return self.loop.is_closed() or self._owner != os.getpid()

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Run ``coroutine`` on the control loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def run(self, function: Callable[[T], R], argument: T) -> R:
        """Run ``function`` on the control loop and wait for what it returns."""

        async def call() -> R:
            return function(argument)

        return self.submit(call()).result()

    def close(self) -> None:
        """Stop the loop, end the streams, join the thread (unless that is the caller)."""
        if not self.closed:
            self.loop.call_soon_threadsafe(self.loop.stop)
            if threading.current_thread() is not self.thread:
                self.thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
            self.watcher.close()
            self.loop.run_until_complete(_cancel_all_tasks())
        finally:
            self.transport.close()
            self.loop.close()


async def _cancel_all_tasks() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
