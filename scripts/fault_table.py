"""Render the recovery times that the fault tests measured as a Markdown table.

    ETCD_GRPC_FAULT_REPORT=report.jsonl pytest tests/faults
    python scripts/fault_table.py report.jsonl

The report holds one JSON object a line, as tests/support/report.py writes it.
Several runs may write to the same file.  What took longer than its bound stands in bold.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["ReportError", "render"]

_HEAD = (
    "| # | fault | runs | median | slowest | at most | note |",
    "|---|---|---|---|---|---|---|",
)


class ReportError(Exception):
    """A line of the report cannot be read; the message says which."""


@dataclass(slots=True)
class _Fault:
    """What was measured of one fault, over all runs."""

    row: int
    name: str
    bound_s: float
    seconds: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def cells(self) -> Sequence[str]:
        slowest = max(self.seconds)
        late = slowest > self.bound_s
        return (
            str(self.row),
            _escaped(self.name),
            str(len(self.seconds)),
            _time(statistics.median(self.seconds)),
            f"**{_time(slowest)}**" if late else _time(slowest),
            f"{self.bound_s:g} s",
            _escaped("; ".join(self.notes)),
        )


def render(lines: Iterable[str]) -> str:
    """The table for the lines of a report, ordered by row, then by what was measured first.

    Raises:
        ReportError: A line is no measurement.
    """
    faults: dict[tuple[int, str, float], _Fault] = {}
    for number, line in enumerate(lines, 1):
        if line.strip():
            _add(faults, line, number)
    ordered = sorted(faults.values(), key=lambda fault: fault.row)
    rows = ["| " + " | ".join(fault.cells()) + " |" for fault in ordered]
    return "\n".join([*_HEAD, *rows]) + "\n"


def _add(faults: dict[tuple[int, str, float], _Fault], line: str, number: int) -> None:
    try:
        found = json.loads(line)
        row, name, bound_s = int(found["row"]), str(found["fault"]), float(found["bound_s"])
        seconds, note = float(found["seconds"]), str(found.get("note", ""))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReportError(f"line {number} is no measurement: {error!r}") from error
    fault = faults.setdefault((row, name, bound_s), _Fault(row, name, bound_s))
    fault.seconds.append(seconds)
    if note and note not in fault.notes:
        fault.notes.append(note)


def _time(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def main(arguments: Sequence[str]) -> None:
    """Read the file that is named and print the table."""
    if len(arguments) != 1:
        sys.exit("usage: python scripts/fault_table.py REPORT.jsonl")
    try:
        print(render(Path(arguments[0]).read_text(encoding="utf-8").splitlines()), end="")
    except (OSError, ReportError) as error:
        sys.exit(f"{arguments[0]}: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
