"""The program as a child process: its streams are ours, and it ends no later than we do.

It is a process group of its own: the terminal's Ctrl-C reaches the sidecar, which drains before the
program hears of it.  Signals go to the program alone, which knows what to do with what it has started;
only SIGKILL, and the program's end, take all that is left of the group.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path

from etcd_grpc.errors import ConfigurationError
from etcd_grpc.etcd.beside import in_thread
from etcd_grpc.processes.children import Children

__all__ = ["Program", "find_program"]


def find_program(name: str) -> str:
    """The path of the program ``name``, as a shell would find it.

    Raises:
        ConfigurationError: There is none, or it cannot be executed.
    """
    found = shutil.which(name)
    if found is not None:
        return found
    path = Path(name)
    if os.sep not in name:
        raise ConfigurationError(f"there is no program {name!r} in the directories of PATH")
    if path.is_dir():
        raise ConfigurationError(f"{name!r} is a directory, not a program")
    if path.exists():
        raise ConfigurationError(f"{name!r} is not executable: chmod +x it, or name its interpreter")
    raise ConfigurationError(f"there is no program {name!r}")


class Program:
    """A running program.  Used on one event loop.

    Args:
        children: Sees to it that the program does not outlive us.
        command: The program and its arguments.

    Raises:
        ConfigurationError: There is no such program, or the system cannot start another process.
    """

    def __init__(self, children: Children, command: Sequence[str]) -> None:
        self._children = children
        argv = [find_program(command[0]), *command[1:]]
        try:
            self._process = children.spawn(
                argv, stdin=None, stdout=None, stderr=None, own_session=False
            )
        except OSError as error:
            raise ConfigurationError(f"cannot start {command[0]!r}: {error.strerror}") from error
        self._ended = False

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def stopped(self) -> bool:
        """Whether it is stopped, as by SIGSTOP: its port then still accepts connections."""
        try:
            stat = Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return False
        return stat.rpartition(")")[2].split()[0] in {"T", "t"}

    def send(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if not self._ended:  # until we have waited for it, nobody else has its pid
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL, to it (which may have left its group) and to what it has started."""
        self.send(signal.SIGKILL)
        if not self._ended:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    async def wait(self) -> int:
        """Wait for its end.  Returns its exit status as a shell tells it: 128 + n for signal n."""
        await in_thread(self._await_end, "etcd-grpc-program")
        self.kill()  # what is left of its group, whose number is taken as long as we have not waited
        self._ended = True
        status = self._children.stop(self._process, grace_s=0)
        return 128 - status if status < 0 else status

    def _await_end(self) -> None:
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
