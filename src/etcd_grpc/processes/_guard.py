"""Becomes another program that the kernel kills when the thread that started it ends (Linux).

Run as a file, never imported: ``python -I -S _guard.py PARENT_PID PROGRAM ARGUMENT...``.
The death signal must be set in the child, between fork and exec.  ``preexec_fn`` would do it there,
but it runs Python after a fork, which can deadlock in a process with threads such as gRPC's; a new
interpreter that sets it and then replaces itself (the setting survives ``execve``, see prctl(2))
cannot.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_NOT_STARTED = 127  # what a shell answers for a command that it cannot run


def _die_with_parent(parent: int) -> None:
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    zero = ctypes.c_ulong(0)
    if prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), zero, zero, zero) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    # The parent may have died before the line above, and then no signal will ever come.
    if os.getppid() != parent:
        sys.exit(_NOT_STARTED)


def _main(parent: int, argv: list[str]) -> None:
    _die_with_parent(parent)
    # Python ignores these two, and what is ignored stays so over exec.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    try:
        os.execv(argv[0], argv)  # noqa: S606  (no shell is wanted)
    except OSError as error:
        sys.stderr.write(f"cannot run {argv[0]}: {error.strerror}\n")
        sys.exit(_NOT_STARTED)


if __name__ == "__main__":
    _main(int(sys.argv[1]), sys.argv[2:])
