"""Constant load: calls at a fixed rate, and what became of them.

Open loop: when a call is due does not depend on when the one before was answered, as far as a few
threads allow.  After a stall of more than a second the schedule starts anew, so that no burst follows.

A tally counts the calls that *begin* while it is open, and is complete once the last of them has
ended.  So every call belongs to exactly one phase, and a window of constant set holds consecutive
picks of the balancer, whatever the network does to the order of the answers.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import grpc

__all__ = ["CallError", "Load", "Tally"]

_MAX_BEHIND_S = 1.0
_LOOK_EVERY_S = 0.005


@dataclass(frozen=True, slots=True)
class CallError:
    """How a call failed: gRPC's status code by name, or the exception's, and the details."""

    code: str
    details: str

    @classmethod
    def of(cls, error: Exception) -> CallError:
        """Describe what a stub raised."""
        if isinstance(error, grpc.RpcError) and isinstance(error, grpc.Call):
            return cls(error.code().name, error.details() or "")
        return cls(type(error).__name__, str(error))


@dataclass(slots=True)
class Tally:
    """What became of calls.  ``by_instance`` has those that were answered."""

    begun: int = 0
    failed: int = 0
    by_instance: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    first_error: CallError | None = None

    @property
    def calls(self) -> int:
        """How many have ended."""
        return self.failed + self.by_instance.total()

    def ended(self, instance: str | None, error: CallError | None, took_s: float) -> None:
        """Count one call."""
        self.slowest_s = max(self.slowest_s, took_s)
        if instance is not None:
            self.by_instance[instance] += 1
            return
        self.failed += 1
        if self.first_error is None:
            self.first_error = error


class Load:
    """Threads that make calls until ``stop``.

    Args:
        call: Makes one call and returns the address of the instance that answered.
        rate_hz: Calls a second, of all threads together.
        threads: How many calls can be under way at the same time.
    """

    def __init__(self, call: Callable[[], str], rate_hz: float, threads: int) -> None:
        self._call = call
        self._interval_s = threads / rate_hz
        self._lock = threading.Lock()  # guards the tallies
        self._open: tuple[Tally, ...] = ()
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(i / rate_hz,), name=f"demo-load-{i}", daemon=True)
            for i in range(threads)
        ]
        self.total = self.open()

    def start(self) -> None:
        """Begin to call."""
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Begin no more calls; return whether all have ended within ``timeout_s`` seconds."""
        self._stopping.set()
        deadline = time.monotonic() + timeout_s
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def open(self) -> Tally:
        """A tally of all calls that begin from now on."""
        tally = Tally()
        with self._lock:
            self._open = (*self._open, tally)
        return tally

    def close(self, tally: Tally) -> None:
        """Count no more calls in ``tally``; return when those under way have ended."""
        with self._lock:
            self._open = tuple(other for other in self._open if other is not tally)
        # Not a condition variable: a Ctrl-C at the wrong moment would leave one locked.
        while not self._complete(tally):
            time.sleep(_LOOK_EVERY_S)

    def turn_over(self, tally: Tally) -> Tally:
        """As ``close``; return a tally that was opened in the same moment, so that no call is lost."""
        following = Tally()
        with self._lock:
            self._open = (*self._open, following)
            self._open = tuple(other for other in self._open if other is not tally)
        self.close(tally)
        return following

    def answered(self, tally: Tally) -> dict[str, int]:
        """``tally.by_instance`` at this moment."""
        with self._lock:
            return dict(tally.by_instance)

    def _complete(self, tally: Tally) -> bool:
        with self._lock:
            return tally.calls == tally.begun

    def _run(self, offset_s: float) -> None:
        due = time.monotonic() + offset_s
        while not self._stopping.wait(max(0.0, due - time.monotonic())):
            self._count_one()
            due = max(due + self._interval_s, time.monotonic() - _MAX_BEHIND_S)

    def _count_one(self) -> None:
        with self._lock:
            tallies = self._open
            for tally in tallies:
                tally.begun += 1
        instance = error = None
        began = time.monotonic()
        try:
            instance = self._call()
        except Exception as failure:  # noqa: BLE001 - whatever it is, the caller got no answer
            error = CallError.of(failure)
        took_s = time.monotonic() - began
        with self._lock:
            for tally in tallies:
                tally.ended(instance, error, took_s)
