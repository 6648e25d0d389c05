"""``etcd-grpc serve --workers`` as a process that a test may break, and what it says."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.waiting import wait_until

from etcd_grpc.testing import Process

__all__ = ["APP", "COMMAND", "ROOT", "Family", "family"]

ROOT = Path(__file__).parents[2]
COMMAND = str(Path(sys.executable).with_name("etcd-grpc"))
APP = "tests.support.worker_app:add_servicers"
_SERVES = re.compile(r"worker (\d+) \(process (\d+)\) serves at (\S+)")


class Family:
    """A parent and its workers."""

    def __init__(self, process: Process) -> None:
        self.process = process

    @property
    def served(self) -> list[tuple[int, int, str]]:
        """Place, process and address of every worker that ever came to serve, in order."""
        found = _SERVES.findall(self.process.output)
        return [(int(place), int(pid), address) for place, pid, address in found]

    @property
    def workers(self) -> dict[int, int]:
        """The process that came last to each place."""
        return {place: pid for place, pid, _ in self.served}

    def signal(self, number: int) -> None:
        """To the parent alone."""
        os.kill(self.process.pid, number)

    def roll(self, timeout_s: float = 60.0) -> None:
        """SIGHUP, and wait until all workers are other processes."""
        done = "all workers are replaced"
        before, times = set(self.workers.values()), len(self.said(done))
        self.signal(signal.SIGHUP)
        wait_until(lambda: len(self.said(done)) > times, done, timeout_s)
        assert not before & set(self.workers.values())

    def said(self, what: str) -> list[str]:
        """The lines in which ``what`` was said."""
        return [line for line in self.process.output.splitlines() if what in line]


@contextmanager
def family(
    service: str,
    etcd: str,
    workers: int,
    *more: str,
    app: str = APP,
    cwd: Path = ROOT,
    **environment: str,
) -> Iterator[Family]:
    """A family of which every worker serves; ended with the block at the latest."""
    command = [COMMAND, "serve", app, "--service", service, "--etcd", etcd, "--workers", str(workers)]
    process = Process([*command, *more], cwd=cwd, env=environment)
    with process:
        made = Family(process)
        wait_until(lambda: len(made.workers) == workers, "every worker serves", 60)
        yield made


def alive(pid: int) -> bool:
    """Whether a process runs, and is no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"
