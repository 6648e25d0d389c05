"""What a parent knows of its workers, in one value; and their output, line by line.  Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from etcd_grpc.server.load_meter import Counts

__all__ = ["Fleet", "Lines", "Worker"]

_MAX_LINE = 1 << 16


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker process.

    Attributes:
        place: Its number among the workers, from 0.
        pid: Of the process.
        state: ``starting``, ``loaded``, ``serving`` or ``leaving``.
        address: Where it serves; ``""`` before it does.
        counts: Its calls so far.
    """

    place: int
    pid: int
    state: str
    address: str
    counts: Counts

    def __str__(self) -> str:
        where = f" at {self.address}" if self.address else ""
        return f"worker {self.place} (process {self.pid}) {self.state}{where}: {_calls(self.counts)}"


@dataclass(frozen=True, slots=True)
class Fleet:
    """All workers together.

    Attributes:
        workers: Those that run.
        ended: The calls of those that have ended.
        restarts: How often one was started again after it had ended unasked.
    """

    workers: tuple[Worker, ...]
    ended: Counts
    restarts: int

    @property
    def counts(self) -> Counts:
        """Calls since the start, over all workers there ever were."""
        parts = [self.ended, *(worker.counts for worker in self.workers)]
        return Counts(
            sum(part.calls for part in parts),
            sum(part.failures for part in parts),
            sum(part.in_flight for part in parts),
        )

    def __str__(self) -> str:
        serving = sum(worker.state == "serving" for worker in self.workers)
        head = f"{serving} workers serving, {self.restarts} restarts: {_calls(self.counts)}"
        return "; ".join([head, *map(str, self.workers)])


def _calls(counts: Counts) -> str:
    return f"{counts.calls} calls, {counts.failures} failed, {counts.in_flight} in flight"


class Lines:
    """Makes lines of the bytes that come out of a pipe, however they are cut."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[str]:
        """The lines that are complete now; one that does not end is cut."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            yield _text(line)
        while len(self._rest) >= _MAX_LINE:
            yield _text(self._rest[:_MAX_LINE])
            self._rest = self._rest[_MAX_LINE:]

    def end(self) -> Iterator[str]:
        """Nothing more will come: what is left, if anything is."""
        rest, self._rest = self._rest, b""
        if rest:
            yield _text(rest)


def _text(line: bytes) -> str:
    return line.removesuffix(b"\r").decode("utf-8", "replace")
