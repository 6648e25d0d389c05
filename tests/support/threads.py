"""What a test may say of threads: which ones began, not how many there are.

A count also moves when a thread of an earlier test ends or when a server's own pool grows.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_thread_begins(*, apart_from: str | None = None) -> Iterator[None]:
    """Fails if a thread began in the block and lives at its end.

    `apart_from` is how the names of threads begin that are not the test's subject.
    """
    before = set(threading.enumerate())
    yield
    began = [thread.name for thread in threading.enumerate() if thread not in before]
    if apart_from is not None:
        began = [name for name in began if not name.startswith(apart_from)]
    assert began == []
