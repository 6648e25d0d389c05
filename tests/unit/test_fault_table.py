"""The table of measured recovery times: what the helper notes is what the script renders."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from scripts.fault_table import ReportError, render
from tests.support.report import record

ROOT = Path(__file__).parents[2]


@pytest.fixture
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "report.jsonl"
    monkeypatch.setenv("ETCD_GRPC_FAULT_REPORT", str(path))
    return path


def test_runs_of_a_fault_are_one_row_in_the_order_of_the_rows(report: Path) -> None:
    record(7, "compaction", 9.04, 12)
    for seconds in (0.007, 0.012, 0.3):
        record(2, "follower killed", seconds, 1, "nothing lost")
    assert render(report.read_text().splitlines()).splitlines()[2:] == [
        "| 2 | follower killed | 3 | 12 ms | 300 ms | 1 s | nothing lost |",
        "| 7 | compaction | 1 | 9.0 s | 9.0 s | 12 s |  |",
    ]


def test_what_took_too_long_is_bold(report: Path) -> None:
    record(1, "leader killed", 5.2, 5)
    assert "| **5.2 s** | 5 s |" in render(report.read_text().splitlines())


def test_different_bounds_and_notes_are_kept_apart_and_together(report: Path) -> None:
    record(4, "paused", 2, 3, "keepalive")
    record(4, "paused", 2, 3, "of a follower")
    record(4, "paused", 7, 8, "watch | stream")
    rows = render(report.read_text().splitlines()).splitlines()[2:]
    assert [row.rsplit("| ", 1)[1] for row in rows] == ["keepalive; of a follower |", "stream |"]
    assert "watch \\| stream" in rows[1]


def test_without_a_file_nothing_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ETCD_GRPC_FAULT_REPORT", raising=False)
    monkeypatch.chdir(tmp_path)
    record(1, "leader killed", 1, 5)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("line", ["{", "[]", "7", '{"row": 1}', json.dumps({"row": "x", "fault": ""})])
def test_a_line_that_is_no_measurement_is_named(line: str) -> None:
    with pytest.raises(ReportError, match="line 2"):
        render(["", line])


def test_the_script_prints_the_table_and_explains_what_it_cannot_read(report: Path) -> None:
    record(1, "leader killed", 1, 5)

    def script(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "scripts/fault_table.py", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    answer = script(str(report))
    assert answer.stdout.splitlines()[-1] == "| 1 | leader killed | 1 | 1.0 s | 1.0 s | 5 s |  |"
    assert "usage" in script().stderr
    missing = script(str(report) + ".not")
    assert missing.returncode == 1
    assert "Traceback" not in missing.stderr
