"""The pytest plugin costs nothing until a fixture is asked for, and then says what it lacks."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from etcd_grpc.devcluster.metrics import parsed
from etcd_grpc.testing import wait_until

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run pytest on one module, with this plugin and no other."""

    def pytest_on(module: str, **env: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "test_module.py").write_text(module)
        options = ["-q", "-p", "no:cacheprovider", "-p", "pytest_etcd_grpc", "-W", "error"]
        return subprocess.run(
            [sys.executable, "-m", "pytest", *options, f"--rootdir={tmp_path}", tmp_path],
            env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": "", **env},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return pytest_on


def test_pytest_finds_the_plugin() -> None:
    assert {entry.value for entry in entry_points(group="pytest11")} >= {"pytest_etcd_grpc"}


def test_nothing_is_imported_until_a_fixture_is_asked_for(run: Run) -> None:
    done = run(
        """
import sys

def test_modules():
    assert "pytest_etcd_grpc" in sys.modules
    assert not {"grpc", "google.protobuf", "asyncio", "etcd_grpc"} & set(sys.modules)
"""
    )
    assert done.returncode == 0, done.stdout


def test_fixtures_of_a_project_come_first(run: Run) -> None:
    done = run(
        """
import pytest

@pytest.fixture
def etcd():
    return "mine"

def test_fixture(etcd):
    assert etcd == "mine"
"""
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("fixture", ["etcd", "etcd_cluster"])
def test_without_an_etcd_a_test_fails_and_says_why(run: Run, fixture: str) -> None:
    done = run(f"def test_fixture({fixture}): pass", ETCD_GRPC_ETCD_BIN="/no/such/etcd")
    assert done.returncode == 1
    assert "1 error" in done.stdout
    assert "cannot start an etcd: ETCD_GRPC_ETCD_BIN is '/no/such/etcd'" in done.stdout
    assert "Traceback" not in done.stdout


def test_waiting_returns_what_was_waited_for_or_names_it() -> None:
    answers = iter([0, "", "here"])
    assert wait_until(lambda: next(answers), "an answer") == "here"
    with pytest.raises(AssertionError, match=r"not within 0.02 s: rain \(last: \[\]\)"):
        wait_until(list, "rain", 0.02)


def test_metrics_are_numbers_by_name_and_labels() -> None:
    text = '# HELP a A.\n# TYPE a counter\na{x="b c",y="}"} 1.5e+06\n\nb 0\nc NaN\n'
    samples = parsed(text)
    assert samples['a{x="b c",y="}"}'] == 1_500_000
    assert list(samples) == ['a{x="b c",y="}"}', "b", "c"]
