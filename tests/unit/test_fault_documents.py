"""docs/faults.md tells the truth: each row with a test stands there, with the file of that test."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs/faults.md").read_text(encoding="utf-8")
ROWS = dict(re.findall(r"^\| (\d+) \| (.*)$", PAGE.partition("## Measured")[0], re.MULTILINE))


def rows_tested() -> dict[int, set[str]]:
    """By row, the files with a test that has it in its name."""
    found: dict[int, set[str]] = {}
    for path in (ROOT / "tests/faults").glob("test_*.py"):
        for numbers in re.findall(r"def test_rows?_((?:\d+_(?:and_)?)+)", path.read_text("utf-8")):
            for number in re.findall(r"\d+", numbers):
                found.setdefault(int(number), set()).add(path.name)
    return found


def test_every_row_with_a_test_is_on_the_page_with_its_file() -> None:
    for row, files in rows_tested().items():
        assert str(row) in ROWS, f"row {row} is missing"
        for name in files:
            assert name in ROWS[str(row)], f"row {row} does not name {name}"


def test_every_row_of_the_session_has_a_test() -> None:
    owned = {*range(1, 19), *range(20, 23), *range(26, 32), 34, *range(36, 43), 46}
    assert {int(row) for row in ROWS} >= owned
    # Whole files, whose names say it; and a test of the integration suite.
    elsewhere = {38, 46, 31}
    assert set(rows_tested()) >= owned - elsewhere


def test_the_page_has_a_table_of_measured_times() -> None:
    measured = PAGE.partition("## Measured")[2]
    assert measured.count("\n| ") > 20
