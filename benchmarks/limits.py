"""Room for many connections, each of which is an open file."""

from __future__ import annotations

import resource

from benchmarks.outcome import BenchmarkError

__all__ = ["allow_open_files"]

_OTHER_FILES = 200  # modules, pipes, epoll sets, etcd


def allow_open_files(connections: int) -> None:
    """Let this process, and those it starts from now on, have ``connections`` connections each.

    Raises:
        BenchmarkError: The system's hard limit is lower.
    """
    needed = connections + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise BenchmarkError(
            f"{connections} connections need {needed} open files; the hard limit is {hard} (ulimit -Hn)"
        )
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
