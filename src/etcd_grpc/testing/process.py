"""A program of yours as a process that a test may break: your server, most of the time.

It ends no later than the test process, even if that is killed (``processes/children.py``).  Signals
go to everything that the program has started, except for SIGTERM, which is its own affair.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Self

from etcd_grpc.processes.children import Children
from etcd_grpc.testing.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

__all__ = ["Process"]

_TAIL_LINES = 20


class Process:
    """A program, started on entering the ``with`` block and ended on leaving it.

    ``command``: the program, looked up on ``PATH``, and its arguments.  ``ready``: a regular
    expression; the start waits until something in the output matches (:attr:`match`), at most
    ``timeout_s`` seconds.  ``env``: variables in addition to ours.  ``cwd``: its working directory.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        ready: str = "",
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        timeout_s: float = 30.0,
    ) -> None:
        self._command = tuple(map(str, command))
        self._ready = re.compile(ready, re.MULTILINE)
        self._env = {**os.environ, **(env or {})}
        self._cwd = cwd
        self._timeout_s = timeout_s
        self._children: Children | None = None
        self._log: Path | None = None
        self._log_start = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._match: re.Match[str] | None = None

    @property
    def match(self) -> re.Match[str]:
        """What matched ``ready`` at the last start: its groups can tell the port, for example.

        Raises:
            RuntimeError: not started yet.
        """
        if self._match is None:
            raise RuntimeError("the process was not started")
        return self._match

    @property
    def pid(self) -> int:
        """The number of the process.  Raises as :meth:`kill`."""
        return self._started().pid

    @property
    def alive(self) -> bool:
        """Whether it runs, or is paused."""
        return self._process is not None and self._process.poll() is None

    @property
    def output(self) -> str:
        """What it has written to standard output and standard error since the last start."""
        if self._log is None:
            return ""
        with self._log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode("utf-8", "replace")

    def start(self) -> Self:
        """Start it, also again after its end, and wait until it is ready.

        Raises:
            FileNotFoundError: there is no such program.
            RuntimeError: it runs already, or ended before it was ready.
            AssertionError: it was not ready in time.
        """
        if self.alive:
            raise RuntimeError(f"{self._command[0]} runs already")
        if self._children is None:
            self._children = Children(f"process {self._command[0]}")
        if self._log is None:
            self._log = self._children.directory("etcd-grpc-process-") / "output"
        with self._log.open("ab") as log:
            self._log_start = log.tell()
            self._process = self._children.spawn(
                self._command, env=self._env, cwd=self._cwd, stdout=log, stderr=log
            )
        self._match = wait_until(self._readiness, f"{self._command[0]} is ready", self._timeout_s)
        return self

    def kill(self) -> None:
        """SIGKILL, as a crash; returns when it is gone.

        Raises:
            RuntimeError: not started yet.
        """
        process = self._started()
        if self._children is not None:
            self._children.stop(process, grace_s=0)

    def pause(self) -> None:
        """SIGSTOP: its connections stay open, and nothing answers.  Raises as :meth:`kill`."""
        os.killpg(self._started().pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT.  Raises as :meth:`kill`."""
        os.killpg(self._started().pid, signal.SIGCONT)

    def terminate(self, timeout_s: float = 30.0) -> int:
        """SIGTERM, and wait for the end.  Returns the exit status, negative for a signal.

        Raises:
            subprocess.TimeoutExpired: it still ran after ``timeout_s`` seconds.
            RuntimeError: not started yet.
        """
        process = self._started()
        process.terminate()
        return process.wait(timeout_s)

    def close(self) -> None:
        """End it, in whatever state, and forget its output.  Harmless when repeated."""
        if self._children is not None:
            self._children.close(grace_s=0)
            self._children = self._log = None

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("the process was not started")
        return self._process

    def _readiness(self) -> re.Match[str] | None:
        ended = not self.alive  # looked at first: what it wrote before its end counts
        match = self._ready.search(self.output)
        if match is None and ended:
            tail = "\n".join(self.output.splitlines()[-_TAIL_LINES:]) or "(it said nothing)"
            status = self._started().returncode
            raise RuntimeError(
                f"{self._command[0]} ended with status {status} before it was ready:\n{tail}"
            )
        return match
