"""Child processes that cannot outlive us.

Three lines of defence, each for what the one before cannot see:

1. :meth:`Children.close`, on leaving the ``with`` block, on exit of the interpreter, or when the
   object is dropped: SIGTERM, a grace period, SIGKILL; then the temporary directories.
2. On Linux the kernel kills each child when we die in any other way (``_guard.py``).  It does so
   already when the *thread* that started the child ends, so all are started from one thread that
   lives as long as the object.  That also keeps a Ctrl-C, which Python raises in the main thread
   only, from falling between starting a child and noting it down.
3. A janitor process waits for our end (``_janitor.py``), kills what is still there, and removes the
   temporary directories, which no signal does.

Children get sessions of their own: the terminal's Ctrl-C reaches us, and we stop them in order.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import queue
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
import weakref
from concurrent.futures import Future
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self, TypeAlias, TypeVar

from etcd_grpc.processes import _janitor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

__all__ = ["Children"]

_T = TypeVar("_T")
_Output: TypeAlias = "int | IO[Any]"
_Job: TypeAlias = "tuple[Future[Any], Callable[[], Any]]"

_PYTHON = (sys.executable, "-I", "-S")  # no site-packages, no environment: starts in 10 ms
_GUARD = str(Path(__file__).with_name("_guard.py"))
_JANITOR = str(Path(_janitor.__file__))
_JANITOR_TIMEOUT_S = 10.0
_REAP_TIMEOUT_S = 2.0  # after SIGKILL

_open: weakref.WeakSet[Children] = weakref.WeakSet()


class Children:
    """Starts child processes and sees to it that they end no later than this process.

    ``label`` names the whole in warnings.  Methods may be called from any thread.  A process that
    was forked from ours has no part in it: there, :meth:`close` does nothing.
    """

    def __init__(self, label: str = "child processes") -> None:
        self._label = label
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._accepting = True
        self._closed = False
        self._processes: list[subprocess.Popen[bytes]] = []
        self._directories: list[Path] = []
        self._janitor: subprocess.Popen[bytes] | None = None
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        # The thread knows only its queue: a reference to us would keep us from being dropped.
        self._thread = threading.Thread(
            target=_work, args=(self._jobs,), name="etcd-grpc-children", daemon=True
        )
        self._thread.start()
        _open.add(self)
        self._run(self._start_janitor)

    @property
    def owned(self) -> bool:
        """Whether this process made the object (and is not a fork of the one that did)."""
        return self._owner == os.getpid()

    def directory(self, prefix: str) -> Path:
        """Make a temporary directory that is removed by :meth:`close`, or when this process dies.

        Raises:
            OSError: it cannot be made.
            RuntimeError: closed already.
        """
        return self._run(lambda: self._make_directory(prefix))

    def spawn(
        self,
        argv: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: _Output | None = subprocess.DEVNULL,
        stdout: _Output | None = subprocess.DEVNULL,
        stderr: _Output | None = subprocess.DEVNULL,
        own_session: bool = True,
    ) -> subprocess.Popen[bytes]:
        """Start a program in a session of its own, or else only in a process group of its own.

        ``env`` is the whole environment (default: ours); ``stdin``, ``stdout`` and ``stderr`` are as
        for :class:`subprocess.Popen` (``None``: ours), except that the default is nowhere.

        Raises:
            FileNotFoundError: there is no such program.
            OSError: the system cannot start another process.
            RuntimeError: closed already.
        """
        environment = dict(os.environ if env is None else env)
        program = shutil.which(argv[0], path=environment.get("PATH"))
        if program is None:
            raise FileNotFoundError(f"no executable program {str(argv[0])!r}")
        command = [str(Path(program).absolute()), *map(str, argv[1:])]
        if sys.platform == "linux":
            command = [*_PYTHON, _GUARD, str(self._owner), *command]

        def start() -> subprocess.Popen[bytes]:
            process = subprocess.Popen(
                command,
                env=environment,
                cwd=cwd,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                start_new_session=own_session,
                process_group=None if own_session else 0,
            )
            self._processes.append(process)
            self._tell(f"+{process.pid} {_janitor.start_time(process.pid)}")
            return process

        return self._run(start)

    def stop(self, process: subprocess.Popen[bytes], grace_s: float = 5.0) -> int:
        """End one child and return its exit status (negative: the signal that ended it).

        SIGTERM first; after ``grace_s`` seconds, or at once if that is 0, SIGKILL for it and for
        whatever it started.  A child that has ended already is fine.
        """
        self.stop_all([process], grace_s)
        return process.wait()

    def stop_all(self, processes: Sequence[subprocess.Popen[bytes]], grace_s: float = 5.0) -> None:
        """End several children at the same time, with one grace period for all of them."""
        deadline = time.monotonic() + grace_s
        if grace_s > 0:
            for process in processes:
                process.terminate()
                process.send_signal(signal.SIGCONT)  # a stopped process cannot obey
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
        for process in processes:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        for process in processes:
            # Bounded: a Ctrl-C in the middle of a poll can have left Popen's lock taken for ever.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_REAP_TIMEOUT_S)
            self._forget(process)

    def close(self, grace_s: float = 5.0) -> None:
        """Stop what is left, the last started first, and remove the temporary directories.

        Harmless when repeated, and may be repeated after an exception (Ctrl-C) cut it short.
        """
        if self._closed or not self.owned:
            return
        with self._lock:
            self._accepting = False
            processes = self._processes[::-1]
            directories = list(self._directories)
        self.stop_all(processes, grace_s)
        for directory in directories:
            shutil.rmtree(directory, ignore_errors=True)
        self._stop_janitor()  # which tries again where something was left
        self._jobs.put(None)
        if threading.current_thread() is not self._thread:  # the last reference may die there
            self._thread.join()
        self._closed = True
        _open.discard(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self._close_forgotten()

    def _close_forgotten(self) -> None:
        if not getattr(self, "_closed", True) and self.owned:
            try:
                warnings.warn(f"{self._label}: never stopped", ResourceWarning, stacklevel=2)
            finally:  # where warnings are errors, too
                self.close()

    def _run(self, job: Callable[[], _T]) -> _T:
        """Do ``job`` on our thread, where no Ctrl-C can cut it in two."""

        def guarded() -> _T:
            with self._lock:  # against close() looking at the lists meanwhile
                if not self._accepting:
                    raise RuntimeError(f"{self._label}: closed")
                return job()

        future: Future[_T] = Future()
        with self._lock:
            if not self._accepting or not self.owned:  # a fork has no such thread
                raise RuntimeError(f"{self._label}: closed")
            self._jobs.put((future, guarded))
        return future.result()

    def _make_directory(self, prefix: str) -> Path:
        # The name is random enough to be nobody else's, and is told first: we may be killed between
        # these two lines.
        directory = Path(tempfile.gettempdir()).absolute() / f"{prefix}{secrets.token_hex(8)}"
        self._tell(f"d{os.fsencode(directory).hex()}")
        directory.mkdir(mode=0o700)
        self._directories.append(directory)
        return directory

    def _start_janitor(self) -> None:
        self._janitor = subprocess.Popen(
            [*_PYTHON, _JANITOR, str(self._owner)],
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            bufsize=0,
        )

    def _tell(self, command: str) -> None:
        """One short line for the janitor: a single write, so that threads do not mix theirs."""
        if self._janitor is not None and self._janitor.stdin is not None:
            # Somebody may have killed it; the kernel's guard still stands.
            with contextlib.suppress(OSError, ValueError):
                self._janitor.stdin.write(f"{command}\n".encode("ascii"))

    def _forget(self, process: subprocess.Popen[bytes]) -> None:
        with self._lock:
            if process in self._processes:
                self._processes.remove(process)
        self._tell(f"-{process.pid}")

    def _stop_janitor(self) -> None:
        if self._janitor is None or self._janitor.stdin is None:
            return
        self._tell("q")
        self._janitor.stdin.close()
        try:
            self._janitor.wait(_JANITOR_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._janitor.kill()
            self._janitor.wait()


def _work(jobs: queue.SimpleQueue[_Job | None]) -> None:
    """Do the jobs in turn until there comes ``None``."""
    while (job := jobs.get()) is not None:
        future, work = job
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001  (it is the caller's)
            future.set_exception(error)
        del job, future, work  # the next may be long in coming, and these hold their owner


@atexit.register
def _close_forgotten() -> None:
    for children in list(_open):
        children._close_forgotten()
