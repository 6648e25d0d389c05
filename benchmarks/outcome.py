"""What a benchmark is given and gives back, and the words for the machine on which it ran."""

from __future__ import annotations

import enum
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import etcd_grpc
from etcd_grpc.devcluster import find_etcd_binary

__all__ = ["BenchmarkError", "Outcome", "Size", "load_average", "machine"]


class BenchmarkError(Exception):
    """The measurement could not be made; the message says why."""


class Size(enum.StrEnum):
    """How much is measured."""

    FULL = "full"
    QUICK = "quick"  # within 40 s
    TINY = "tiny"  # only shows that it runs: for tests


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a benchmark found.

    Attributes:
        results: Figures by name; the unit is the end of the name, without one it is a ratio or a count.
        counts: How much was measured to get them.
    """

    results: Mapping[str, float]
    counts: Mapping[str, int]


def machine() -> dict[str, Any]:
    """The versions and the hardware that figures depend on.

    Raises:
        ConfigurationError: There is no etcd program.
    """
    return {
        "etcd_grpc": etcd_grpc.__version__,
        "python": platform.python_version(),
        "grpcio": version("grpcio"),
        "protobuf": version("protobuf"),
        "etcd": _etcd_version(),
        "platform": platform.platform(),
        "cpu": _cpu_model(),
        "cpus": len(os.sched_getaffinity(0)),
    }


def load_average() -> float:
    """Processes that wanted to run, over the last minute: far above 0 before a run, others disturb."""
    return round(os.getloadavg()[0], 2)


def _etcd_version() -> str:
    command = [str(find_etcd_binary()), "--version"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20).stdout
    return answer.partition("etcd Version:")[2].partition("\n")[0].strip() or "unknown"


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
