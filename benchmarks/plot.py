"""A chart as SVG, without a library: lines over time, marks, a legend.  Pure.

Light and dark pages both show it: the background is white in either.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

__all__ = ["Line", "Mark", "chart", "ticks"]

_WIDTH, _HEIGHT = 800, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 44, 48
_COLOURS = ("#2563eb", "#d97706", "#059669", "#7c3aed", "#dc2626")
_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#1f2937}.title{font-size:15px;font-weight:600}"
    ".grid{stroke:#e5e7eb}.axis{stroke:#6b7280}.mark{stroke:#dc2626;stroke-dasharray:4 3}"
    "polyline{fill:none;stroke-width:1.5;stroke-linejoin:round}"
)

Point = tuple[float, float]


class Line(NamedTuple):
    """One line: its name in the legend and its points, from left to right."""

    name: str
    points: Sequence[Point]
    steps: bool = False  # hold each value until the next point


class Mark(NamedTuple):
    """A moment: a vertical line with words."""

    x: float
    name: str


class _Scale(NamedTuple):
    """From values to pixels."""

    low: float
    high: float
    first: float
    last: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.first + share * (self.last - self.first), 1)


def chart(
    title: str, x_label: str, y_label: str, lines: Sequence[Line], marks: Sequence[Mark] = ()
) -> str:
    """An SVG document.  The y axis begins at 0.

    Raises:
        ValueError: No line has a point.
    """
    points = [point for line in lines for point in line.points]
    if not points:
        raise ValueError("a chart without a point")
    xs = [x for x, _ in points] + [mark.x for mark in marks]
    x_ticks = ticks(min(xs), max(xs), 10)
    y_ticks = ticks(0, max(y for _, y in points), 6)
    across = _Scale(x_ticks[0], x_ticks[-1], _LEFT, _WIDTH - _RIGHT)
    up = _Scale(y_ticks[0], y_ticks[-1], _HEIGHT - _BOTTOM, _TOP)
    body = [
        *_y_axis(y_ticks, up, y_label),
        *_x_axis(x_ticks, across, x_label),
        *(_line(line, _COLOURS[i % len(_COLOURS)], across, up) for i, line in enumerate(lines)),
        *(part for mark in marks for part in _mark(mark, across)),
        *_legend(lines),
        _text(_LEFT, 20, title, "start", "title"),
    ]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style>"
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>'
    )
    return "\n".join([head, *body, "</svg>"]) + "\n"


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers, evenly spaced, that reach from ``low`` or below to ``high`` or above."""
    if high <= low:
        high = low + 1
    raw = (high - low) / about
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 9) for number in range(first, last + 1)]


def _line(line: Line, colour: str, across: _Scale, up: _Scale) -> str:
    places: list[Point] = []
    for x, y in line.points:
        if line.steps and places:
            places.append((across(x), places[-1][1]))
        places.append((across(x), up(y)))
    joined = " ".join(f"{x:g},{y:g}" for x, y in places)
    return f'<polyline points="{joined}" stroke="{colour}"/>'


def _y_axis(y_ticks: Sequence[float], up: _Scale, label: str) -> list[str]:
    parts = []
    for value in y_ticks:
        parts.append(_rule(_LEFT, up(value), _WIDTH - _RIGHT, up(value), "grid"))
        parts.append(_text(_LEFT - 8, up(value) + 4, f"{value:g}", "end"))
    if not label:
        return parts
    middle = (_TOP + _HEIGHT - _BOTTOM) / 2
    turned = f'transform="rotate(-90 16 {middle:g})"'
    parts.append(f'<text x="16" y="{middle:g}" text-anchor="middle" {turned}>{escape(label)}</text>')
    return parts


def _x_axis(x_ticks: Sequence[float], across: _Scale, label: str) -> list[str]:
    bottom = _HEIGHT - _BOTTOM
    parts = [_rule(_LEFT, bottom, _WIDTH - _RIGHT, bottom, "axis")]
    for value in x_ticks:
        parts.append(_rule(across(value), bottom, across(value), bottom + 4, "axis"))
        parts.append(_text(across(value), bottom + 18, f"{value:g}", "middle"))
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 10, label, "middle"))
    return parts


def _mark(mark: Mark, across: _Scale) -> list[str]:
    x = across(mark.x)
    return [
        _rule(x, _TOP, x, _HEIGHT - _BOTTOM, "mark"),
        _text(x + 4, _TOP + 12, mark.name, "start"),
    ]


def _legend(lines: Sequence[Line]) -> list[str]:
    """From the right of the title line to the left."""
    parts = []
    right: float = _WIDTH - _RIGHT
    for number, line in reversed(list(enumerate(lines))):
        left = right - 6.5 * len(line.name)  # about as wide as the letters are
        colour = _COLOURS[number % len(_COLOURS)]
        parts.append(f'<rect x="{left - 20:g}" y="14" width="14" height="4" fill="{colour}"/>')
        parts.append(_text(left, 20, line.name, "start"))
        right = left - 36
    return parts


def _rule(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" class="{kind}"/>'


def _text(x: float, y: float, text: str, anchor: str, kind: str = "") -> str:
    style = f' class="{kind}"' if kind else ""
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}"{style}>{escape(text)}</text>'
