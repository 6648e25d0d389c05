"""Charts as SVG files: lines over time or size, marks, a legend that hides nothing.

The same points make the same file, byte for byte; words stay text, so that a file can be searched.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure

__all__ = ["Chart", "Line", "Mark"]

_STYLE: dict[Any, object] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "etcd-grpc",
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.titlelocation": "left",
}

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


class Chart(NamedTuple):
    """What a chart shows.

    Attributes:
        title: Above it.
        x_label, y_label: Beside the axes.
        lines: At least one.
        marks: Drawn over them.
        powers: The x axis is logarithmic.
        y_from: Where the y axis begins; None: a little below the lowest point.
    """

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    marks: Sequence[Mark] = ()
    powers: bool = False
    y_from: float | None = 0

    def svg(self) -> str:
        """The document.

        Raises:
            ValueError: No line has a point.
        """
        written = io.StringIO()
        with mpl.rc_context(_STYLE):
            self.figure().savefig(written, format="svg", metadata={"Date": None, "Creator": None})
        # What matplotlib ends its lines with, a linter of whitespace would refuse.
        return "\n".join(line.rstrip() for line in written.getvalue().splitlines()) + "\n"

    def figure(self) -> Figure:
        """The drawing.

        Raises:
            ValueError: No line has a point.
        """
        if not any(line.points for line in self.lines):
            raise ValueError("a chart without a point")
        drawn = Figure(figsize=(8, 4), layout="constrained")
        axes = drawn.add_subplot()
        for line in self.lines:
            xs, ys = zip(*line.points, strict=True) if line.points else ((), ())
            how = "steps-post" if line.steps else "default"
            axes.plot(xs, ys, drawstyle=how, linewidth=1.3, label=line.name)
        if self.powers:
            axes.set_xscale("log")
        if self.y_from is not None:
            axes.set_ylim(bottom=self.y_from)
        for mark in self.marks:
            axes.axvline(mark.x, color="tab:red", linestyle="--", linewidth=1)
            axes.annotate(mark.name, (mark.x, 1), (4, -12), ("data", "axes fraction"), "offset points")
        axes.set(title=self.title, xlabel=self.x_label, ylabel=self.y_label)
        drawn.legend(loc="outside lower center", ncols=3, frameon=False)
        return drawn
