"""Telling how the demonstration goes: as lines, as a table (``table.py``), as JSON."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from types import TracebackType
from typing import Any, Protocol, Self, TextIO

from etcd_grpc.demo.phases import TOLERANCE, Phase, PhaseResult, World

__all__ = ["LogNotes", "PlainReporter", "Reporter", "as_json", "shares"]

_MAX_LOG_LENGTH = 200


class Reporter(Protocol):
    """Follows the demonstration; a context manager around all of it."""

    def note(self, text: str) -> None:
        """Something happened.  From any thread."""

    def playing(self, world: World) -> None:
        """Servers and load are there."""

    def begin(self, phase: Phase) -> None:
        """A phase begins."""

    def end(self, result: PhaseResult) -> None:
        """That phase is over."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class PlainReporter:
    """Lines, for what is no terminal."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def note(self, text: str) -> None:
        print(f"  {text}", file=self._out, flush=True)

    def playing(self, world: World) -> None:
        del world

    def begin(self, phase: Phase) -> None:
        print(f"{phase.name}: {phase.about}", file=self._out, flush=True)

    def end(self, result: PhaseResult) -> None:
        verdict = "held" if result.ok else "FAILED"
        print(
            f"{result.name}: {verdict}: {result.calls} calls, {result.failed} failed, "
            f"{result.seconds:.1f} s, the slowest {result.slowest_s * 1000:.0f} ms, "
            f"steady shares {shares(result)}",
            *(f"  problem: {problem}" for problem in result.problems),
            sep="\n",
            file=self._out,
            flush=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass


class LogNotes(logging.Handler):
    """Warnings of the library, as notes, until ``silent``."""

    def __init__(self, note: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._note = note
        self.silent = False

    def emit(self, record: logging.LogRecord) -> None:
        if not self.silent:
            text = " ".join(record.getMessage().split())
            with contextlib.suppress(OSError, ValueError):  # our output's end is not the library's
                self._note(f"{record.name}: {text[:_MAX_LOG_LENGTH]}")


def shares(result: PhaseResult) -> str:
    """The steady shares in a few words: one by one if they are not equal."""
    counts = [result.steady.get(address, 0) for address in result.expected]
    uneven = result.deviation
    if uneven is None:
        return "none"
    if uneven > TOLERANCE:
        return " ".join(f"{count / sum(counts):.1%}" for count in counts)
    return f"{len(counts)} x {1 / len(counts):.1%} ({uneven:.1%} off)"


def as_json(results: Sequence[PhaseResult], *, ok: bool, seconds: float) -> dict[str, Any]:
    """The whole run, for ``--json``."""
    return {
        "ok": ok,
        "seconds": round(seconds, 3),
        "phases": [_phase_as_json(result) for result in results],
    }


def _phase_as_json(result: PhaseResult) -> dict[str, Any]:
    deviation = result.deviation
    return {
        "name": result.name,
        "ok": result.ok,
        "calls": result.calls,
        "failed": result.failed,
        "seconds": round(result.seconds, 3),
        "slowest_ms": round(result.slowest_s * 1000, 1),
        "by_instance": dict(result.by_instance),
        "steady": dict(result.steady),
        "steady_deviation": None if deviation is None else round(deviation, 5),
        "first_error": None if result.first_error is None else asdict(result.first_error),
        "problems": list(result.problems),
    }
