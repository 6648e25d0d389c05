"""How many cores this process can use: what "fully busy" means for it.

An interpreter with a global lock runs on one core at a time, however many the machine has, so one core
is all of its capacity; a share of 64 cores would make a saturated server look idle beside a saturated
one on a small machine.  A container's CPU quota may leave it less than one core.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["usable_cores"]

_CGROUP = Path("/sys/fs/cgroup")


def usable_cores(cgroup: Path = _CGROUP) -> float:
    """The number of cores, mostly 1; less under a quota, more for a Python without a global lock."""
    if getattr(sys, "_is_gil_enabled", lambda: True)():
        cores = 1.0
    elif hasattr(os, "sched_getaffinity"):
        cores = float(len(os.sched_getaffinity(0)))
    else:
        cores = float(os.cpu_count() or 1)
    quota = _quota_v2(cgroup) or _quota_v1(cgroup)
    return min(cores, quota) if quota else cores


def _quota_v2(cgroup: Path) -> float | None:
    """The quota in cores by cgroup v2: ``QUOTA PERIOD``, or ``max`` for none."""
    return _quotient(_words(cgroup / "cpu.max"))


def _quota_v1(cgroup: Path) -> float | None:
    folder = cgroup / "cpu"
    return _quotient(_words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us"))


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").split()
    except (OSError, UnicodeError):  # another version of cgroups, or none
        return []


def _quotient(words: list[str]) -> float | None:
    """None if there is no limit (``max``, -1) or nothing that can be understood."""
    if len(words) != 2 or not all(word.isdecimal() for word in words) or int(words[1]) == 0:
        return None
    return int(words[0]) / int(words[1]) or None
