"""The benchmarks run and say what they promise to say; how fast things are is not tested."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FIGURES = {
    "call_overhead": {
        "sync_vs_plain",
        "sync_full_vs_plain",
        "aio_full_vs_plain",
        "sync_vs_round_robin",
        "sync_control",
        "aio_vs_plain",
        "aio_vs_round_robin",
        "aio_control",
    },
    "propagation": {"p50_ms", "p99_ms", "put_p50_ms"},
    "endpoints": {"rss_mb", "threads", "connect_s"},
    "failover": {"aio_longest_ms", "sync_longest_ms", "aio_rolling_longest_ms"},
    "tail_latency": {"p99_ratio_vs_round_robin", "core_round_robin_p99_ms", "peak_ewma_p50_ms"},
    "recovery": {"peak_requests_per_100ms", "recovered_all_s", "kept_alive_all_s", "streams"},
    "rolling_restart": {"sync_calls", "aio_calls", "plain_calls", "runs_without_failure"},
    "rolling_workers": {"sync_calls", "aio_calls", "plain_calls", "runs_without_failure"},
    "scale": {"resolve_s", "rss_mb", "lag_p99_ms", "changes_per_s", "picker_updates_per_s"},
    "pick": {
        f"{policy}_{endpoints}_us"
        for policy in ("round_robin", "least_request", "ring_hash", "outlier_detection")
        for endpoints in (10, 10_000)
    },
    "workers": {
        "workers_2_vs_1",
        "workers_1_vs_1",
        "workers_1_calls_per_s",
        "workers_2_calls_per_s",
    },
}
SETUP = {"etcd_grpc", "python", "grpcio", "protobuf", "etcd", "cpus", "quick", "load_before"}

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the benchmarks need Linux")


def benchmarks(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=100, **options
    )


@pytest.mark.parametrize("name", sorted(FIGURES))
def test_a_benchmark_prints_one_json_object_with_its_figures(name: str) -> None:
    answer = benchmarks(name, "--tiny")
    assert answer.returncode == 0, answer.stderr
    report = json.loads(answer.stdout)
    assert set(report) == {"benchmark", "results", "setup"}
    assert report["benchmark"] == name
    assert set(report["setup"]) >= SETUP
    results = report["results"]
    assert all(type(figure) in (int, float) for figure in results.values())
    assert all(results[figure] > 0 for figure in FIGURES[name])
    # An event that arrives before the put has returned took no time.
    assert results.get("raw_watch_p50_ms", 0) >= 0


def test_the_list_names_every_benchmark() -> None:
    assert benchmarks("--list").stdout.split() == sorted(FIGURES)


@pytest.mark.parametrize("arguments", [("speed",), (), ("speed", "--quick")])
def test_an_unknown_name_is_answered_with_those_that_there_are(arguments: tuple[str, ...]) -> None:
    answer = benchmarks(*arguments)
    assert answer.returncode == 2
    assert answer.stdout == ""
    assert all(name in answer.stderr for name in FIGURES)
    assert "Traceback" not in answer.stderr


def test_without_an_etcd_program_the_error_says_how_to_get_one() -> None:
    answer = benchmarks("endpoints", "--tiny", env={**os.environ, "ETCD_GRPC_ETCD_BIN": "/no/etcd"})
    assert answer.returncode == 1
    assert answer.stdout == ""
    assert "/no/etcd" in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_process_outlives_a_benchmark_that_is_interrupted(number: signal.Signals) -> None:
    mark = uuid.uuid4().hex
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks", "propagation"],
        cwd=ROOT,
        env={**os.environ, "ETCD_GRPC_TEST_MARK": mark},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: sum(b"benchmarks.echo_server" in c for c in commands(mark)) > 0)
    finally:
        process.send_signal(number)
        process.wait(30)
    wait_until(lambda: not commands(mark))


def commands(mark: str) -> list[bytes]:
    """Command lines of the processes that have ``mark`` in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark.encode() in (entry / "environ").read_bytes():
                found.append((entry / "cmdline").read_bytes())
        except OSError:  # it has ended, or is somebody else's
            continue
    return found


def wait_until(condition: Any) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.05)
