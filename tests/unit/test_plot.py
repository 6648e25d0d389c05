"""Charts: all that they were given can be read in them, and nothing covers anything else."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from itertools import combinations

import pytest
from benchmarks.plot import Chart, Line, Mark

SVG = "{http://www.w3.org/2000/svg}"
FIVE = [Line(f"the line of number {n}", [(0, n), (1, n + 1)]) for n in range(5)]
TITLE = "A title that is as long as the longest of ours: it says what was measured, and on what"


def test_a_chart_is_xml_and_says_everything_that_it_was_given() -> None:
    lines = [Line("one", [(0, 1), (1, 2)]), Line("two", [(0, 3)])]
    root = ET.fromstring(Chart("a < b & c", "x", "y", lines, [Mark(0.5, "<now>")]).svg())
    words = {text.text for text in root.iter(f"{SVG}text")}
    assert words >= {"a < b & c", "x", "y", "one", "two", "<now>"}


def test_the_same_points_make_the_same_file() -> None:
    assert Chart("t", "x", "y", FIVE).svg() == Chart("t", "x", "y", FIVE).svg()


def test_nothing_covers_anything_else() -> None:
    drawn = Chart(TITLE, "x", "y", FIVE, [Mark(0.5, "now")]).figure()
    drawn.draw_without_rendering()
    (axes,), (legend,) = drawn.axes, drawn.legends
    boxes = [
        axes.get_window_extent(),
        axes.title.get_window_extent(),
        axes.xaxis.label.get_window_extent(),
        axes.yaxis.label.get_window_extent(),
        legend.get_window_extent(),
    ]
    assert not [pair for pair in combinations(boxes, 2) if pair[0].overlaps(pair[1])]
    whole = drawn.bbox
    assert all(whole.x0 <= box.x0 and box.x1 <= whole.x1 for box in boxes)


def test_where_the_axes_begin() -> None:
    lines = [Line("one", [(10, 7), (10_000, 9)])]
    (axes,) = Chart("t", "x", "y", lines, powers=True).figure().axes
    assert axes.get_ylim()[0] == 0
    assert axes.get_xscale() == "log"
    (axes,) = Chart("t", "x", "y", lines, y_from=None).figure().axes
    assert 6 < axes.get_ylim()[0] < 7


def test_a_chart_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="point"):
        Chart("t", "x", "y", [Line("one", [])]).svg()
