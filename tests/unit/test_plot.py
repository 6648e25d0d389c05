"""Charts: well-formed, escaped, everything within the frame."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from benchmarks.plot import Line, Mark, chart, ticks

SVG = "{http://www.w3.org/2000/svg}"


def drawn(*lines: Line, marks: tuple[Mark, ...] = ()) -> ET.Element:
    return ET.fromstring(chart("a < b & c", "x", "y", lines, marks))


def places(polyline: ET.Element) -> list[tuple[float, float]]:
    pairs = (pair.split(",") for pair in polyline.attrib["points"].split())
    return [(float(x), float(y)) for x, y in pairs]


def test_a_chart_is_xml_and_says_everything_that_it_was_given() -> None:
    root = drawn(Line("one", [(0, 1), (1, 2)]), Line("two", [(0, 3)]), marks=(Mark(0.5, "<now>"),))
    words = {text.text for text in root.iter(f"{SVG}text")}
    assert words >= {"a < b & c", "x", "y", "one", "two", "<now>"}
    assert len(list(root.iter(f"{SVG}polyline"))) == 2


def test_lines_stay_within_the_axes_and_larger_is_higher() -> None:
    (line,) = drawn(Line("one", [(-3, 0), (5, 170), (7.5, 20)]), marks=(Mark(9, "end"),)).iter(
        f"{SVG}polyline"
    )
    found = places(line)
    assert all(64 <= x <= 784 and 44 <= y <= 312 for x, y in found)
    assert [x for x, _ in found] == sorted(x for x, _ in found)
    assert found[1][1] < found[2][1] < found[0][1] == 312


def test_steps_hold_a_value_until_the_next() -> None:
    (line,) = drawn(Line("one", [(0, 1), (1, 2)], steps=True)).iter(f"{SVG}polyline")
    (x0, y0), corner, (x1, _) = places(line)
    assert x0 < x1
    assert corner == (x1, y0)


@pytest.mark.parametrize(
    ("low", "high", "about", "expected"),
    [
        (0, 10, 5, [0, 2, 4, 6, 8, 10]),
        (0, 0.3, 3, [0, 0.1, 0.2, 0.3]),
        (-4.9, 25, 6, [-5, 0, 5, 10, 15, 20, 25]),
        (0, 0, 2, [0, 0.5, 1]),
        (0, 219, 6, [0, 50, 100, 150, 200, 250]),
    ],
)
def test_ticks_are_round_and_reach_over_both_ends(
    low: float, high: float, about: int, expected: list[float]
) -> None:
    assert ticks(low, high, about) == expected


def test_a_chart_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="point"):
        chart("t", "x", "y", [Line("one", [])])
