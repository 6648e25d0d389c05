"""Waits until its parent is gone, then kills and removes what the parent left behind.

Run as a file: ``python -I -S _janitor.py PARENT_PID``, in a session of its own, so that the Ctrl-C
which ends the parent does not end the janitor too.  The parent writes on our standard input, one
command a line::

    +PID START_TIME     a child to kill; START_TIME as below, empty where unknown
    -PID                this child has ended and been waited for
    d HEX               a directory to remove, its name in hexadecimal
    q                   the parent has cleaned up itself and goes on living

End of file without a ``q`` means that the parent is ending, in whatever way.  The kernel closes the
pipe a moment before it sends the children their death signal; a child that we were not yet told of
could bring a directory back in that moment, so we wait until we have no parent any more.  A process
that the parent *forked* holds the pipe open too, hence the look at the parent's pid once a second.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_PARENT_CHECK_S = 1.0
_DEATH_TIMEOUT_S = 5.0
_ORPHANED_TIMEOUT_S = 10.0
_REMOVE_ATTEMPTS = 20
_RETRY_S = 0.05


def start_time(pid: int) -> str:
    """When process ``pid`` started, in clock ticks since boot; empty if it is gone or unknown.

    A pid alone is not an identity, since the kernel gives it to another process later; the pair is.
    A zombie counts as gone: it runs no more, and only its parent can remove it.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    # proc(5): the name, in parentheses, may hold anything; state is field 3, starttime field 22.
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]


def _commands(parent: int) -> Iterator[str]:
    """The parent's lines, until it is gone."""
    pending = b""
    while True:
        # What is in the pipe comes first: the parent may be gone before we have read anything.
        if select.select([0], [], [], _PARENT_CHECK_S)[0]:
            chunk = os.read(0, 65536)
            if not chunk:
                return
            *lines, pending = (pending + chunk).split(b"\n")
            for line in lines:
                yield line.decode("ascii")
        elif os.getppid() != parent:
            return


def _kill(children: dict[int, str]) -> None:
    """End these processes and what they started; return when they are gone (or after 5 s)."""
    for pid, started in children.items():
        # Each child leads a process group, whose number stays taken while anybody is in it: with
        # the leader gone the group can only be the old one, or empty.
        if start_time(pid) in (started, ""):
            with contextlib.suppress(OSError):
                os.killpg(pid, signal.SIGKILL)
    deadline = time.monotonic() + _DEATH_TIMEOUT_S
    for pid, started in children.items():
        while started and start_time(pid) == started and time.monotonic() < deadline:
            time.sleep(0.005)


def _await_orphaned(parent: int) -> None:
    """Return when the parent is gone altogether (or after 10 s)."""
    deadline = time.monotonic() + _ORPHANED_TIMEOUT_S
    while os.getppid() == parent and time.monotonic() < deadline:
        time.sleep(0.005)


def _remove(directory: Path) -> None:
    """Remove the directory, until it stays away: a dying process can still create a file."""
    for _ in range(_REMOVE_ATTEMPTS):
        shutil.rmtree(directory, ignore_errors=True)
        time.sleep(_RETRY_S)
        if not directory.exists():
            return


def _main(parent: int) -> None:
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    children: dict[int, str] = {}
    directories: set[Path] = set()
    orderly = False
    for command in _commands(parent):
        kind, (first, _, second) = command[0], command[1:].strip().partition(" ")
        if kind == "+":
            children[int(first)] = second
        elif kind == "-":
            children.pop(int(first), None)
        elif kind == "d":
            directories.add(Path(os.fsdecode(bytes.fromhex(first))))
        else:
            orderly = True
    if not orderly:
        _await_orphaned(parent)
    _kill(children)
    for directory in directories:
        if not orderly or directory.exists():
            _remove(directory)


if __name__ == "__main__":
    _main(int(sys.argv[1]))
