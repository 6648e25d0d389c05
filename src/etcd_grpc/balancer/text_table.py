"""Rows of words and numbers as aligned plain text."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["text_table"]


def text_table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns two spaces apart; numbers to the right, all else to the left."""
    shown = [[_text(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(heads, *shown, strict=True)]
    right = [
        bool(rows) and all(isinstance(row[i], int | float) or row[i] is None for row in rows)
        for i in range(len(heads))
    ]
    lines = []
    for cells in (heads, *shown):
        padded = zip(cells, widths, right, strict=True)
        line = "  ".join(c.rjust(width) if number else c.ljust(width) for c, width, number in padded)
        lines.append(line.rstrip())
    return "\n".join(lines)


def _text(cell: object) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, float):
        return f"{cell:.2f}"
    text = str(cell)
    return text if text.isprintable() else ascii(text)[1:-1]  # what a registry holds may be anything
