"""Children, clusters and the command never outlive the process that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.support.waiting import wait_until

from etcd_grpc.processes import _janitor
from etcd_grpc.processes.children import Children

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

COMMAND = "import typer; from etcd_grpc.cli.devcluster import devcluster; typer.run(devcluster)"


def runs(pid: int) -> bool:
    return _janitor.start_time(pid) != ""


@dataclass
class Offspring:
    """A Python program, with whatever it starts: all are known by a variable they inherit."""

    tmp_path: Path
    process: subprocess.Popen[str]
    mark: str

    def running(self) -> list[int]:
        """The processes that descend from the program, and the program itself, if they run."""
        pids = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and self.mark in (entry / "environ").read_bytes().decode(
                    errors="replace"
                ):
                    pids.append(int(entry.name))
            except OSError:
                continue
        return [pid for pid in pids if runs(pid)]

    def temporary(self) -> list[str]:
        # Only ours: Python itself tries out its temporary directory with a file.
        return [entry.name for entry in self.tmp_path.glob("etcd-grpc-*")]

    def assert_nothing_left(self) -> None:
        wait_until(lambda: not self.running(), "every process has ended", 30)
        wait_until(lambda: not self.temporary(), "every temporary directory is gone", 30)


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., Offspring]]:
    started: list[Offspring] = []
    temporary = tmp_path / "tmp"
    temporary.mkdir()

    def launch_program(code: str, *arguments: str) -> Offspring:
        mark = uuid.uuid4().hex
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code), *arguments],
            env={**os.environ, "DEVCLUSTER_TEST_MARK": mark, "TMPDIR": str(temporary)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(Offspring(temporary, process, mark))
        return started[-1]

    yield launch_program
    for offspring in started:
        for pid in offspring.running():
            os.kill(pid, signal.SIGKILL)
        offspring.process.communicate()


@pytest.fixture
def children() -> Iterator[Children]:
    with Children("children of a test") as running:
        yield running


# Clusters


def test_sigkill_of_the_parent_leaves_nothing(launch: Callable[..., Offspring]) -> None:
    program = launch(
        """
        import signal
        from etcd_grpc.devcluster import Cluster
        with Cluster(3):
            print("up", flush=True)
            signal.pause()
        """
    )
    assert program.process.stdout.readline() == "up\n"
    assert len(program.running()) == 5, "the program, three members and the janitor"
    assert len(program.temporary()) == 1
    program.process.kill()
    program.assert_nothing_left()


def test_sigkill_of_a_parent_that_has_forked_leaves_nothing(
    launch: Callable[..., Offspring],
) -> None:
    program = launch(
        """
        import os, signal
        from etcd_grpc.devcluster import Cluster
        cluster = Cluster(1).start()
        if (child := os.fork()) == 0:
            cluster.stop()  # not the child's: nothing happens
            signal.pause()
        cluster.wait_healthy()
        print(child, flush=True)
        signal.pause()
        """
    )
    fork = int(program.process.stdout.readline())
    program.process.kill()
    wait_until(lambda: program.running() == [fork], "only the fork is left", 30)
    wait_until(lambda: not program.temporary(), "the directory is gone, though the fork has a pipe", 30)


@pytest.mark.parametrize("data_dir", ["None", "Path(sys.argv[1])"])
def test_an_interpreter_that_ends_without_a_stop_leaves_nothing(
    launch: Callable[..., Offspring], tmp_path: Path, data_dir: str
) -> None:
    program = launch(
        f"""
        import sys, warnings
        from pathlib import Path
        from etcd_grpc.devcluster import Cluster
        warnings.simplefilter("always")
        cluster = Cluster(1, data_dir={data_dir}).start()
        """,
        str(tmp_path / "data"),
    )
    _, errors = program.process.communicate(timeout=60)
    assert program.process.returncode == 0
    assert "ResourceWarning: etcd cluster: never stopped" in errors
    assert "Traceback" not in errors
    program.assert_nothing_left()
    if (tmp_path / "data").exists():
        assert '"clean":true' in (tmp_path / "data" / "devcluster.json").read_text(encoding="utf-8")


# The command


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_command_in_order(
    launch: Callable[..., Offspring], ending: signal.Signals
) -> None:
    program = launch(COMMAND)
    line = program.process.stdout.readline()
    assert line.startswith("export ETCDCTL_ENDPOINTS=127.0.0.1:")
    assert line.count(":") == 3
    program.process.send_signal(ending)
    rest, errors = program.process.communicate(timeout=60)
    assert (program.process.returncode, rest) == (0, "")
    assert "Traceback" not in errors
    program.assert_nothing_left()


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("moment", ["directory", "process", "log"])
def test_the_command_interrupted_while_it_starts_leaves_nothing(
    launch: Callable[..., Offspring], ending: signal.Signals, moment: str
) -> None:
    program = launch(COMMAND)
    reached = {
        "directory": program.temporary,
        "process": lambda: len(program.running()) > 2,
        "log": lambda: list(program.tmp_path.glob("*/etcd-1.log")),
    }
    wait_until(reached[moment], moment, 30)
    program.process.send_signal(ending)
    _, errors = program.process.communicate(timeout=60)
    assert program.process.returncode == (-9 if ending == signal.SIGKILL else 0), errors
    program.assert_nothing_left()


def test_the_command_tells_of_a_member_that_ends(launch: Callable[..., Offspring]) -> None:
    program = launch(COMMAND, "--members", "1")
    assert program.process.stdout.readline()
    (started,) = [line for line in [program.process.stderr.readline()] if "etcd-0" in line]
    os.kill(int(started.split()[-1]), signal.SIGKILL)
    assert "Ctrl-C" in program.process.stderr.readline()
    assert program.process.stderr.readline() == "etcd-0 has ended\n"
    program.process.send_signal(signal.SIGTERM)
    program.process.communicate(timeout=60)
    program.assert_nothing_left()


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--members", "0"], 2, "members"),
        (["--port", "65535", "--members", "2"], 1, "error: cannot use port 65536"),
        (["--data-dir", "/proc"], 1, "error: "),
    ],
)
def test_what_the_command_cannot_do_is_a_message_and_no_traceback(
    launch: Callable[..., Offspring], arguments: list[str], status: int, words: str
) -> None:
    program = launch(COMMAND, *arguments)
    output, errors = program.process.communicate(timeout=60)
    assert (program.process.returncode, output) == (status, "")
    assert words in errors
    assert "Traceback" not in errors
    program.assert_nothing_left()


def test_the_command_comes_back_with_its_data(launch: Callable[..., Offspring], tmp_path: Path) -> None:
    lines = []
    for _ in range(2):
        program = launch(COMMAND, "--data-dir", str(tmp_path / "data"))
        lines.append(program.process.stdout.readline())
        program.process.send_signal(signal.SIGTERM)
        program.process.communicate(timeout=60)
        assert program.process.returncode == 0
        program.assert_nothing_left()
    assert lines[0] == lines[1] != ""


# Children


def test_a_child_is_in_a_session_of_its_own_and_outlives_the_thread_that_asked(
    children: Children,
) -> None:
    spawned: list[subprocess.Popen[bytes]] = []
    asking = threading.Thread(target=lambda: spawned.append(children.spawn(["sleep", "60"])))
    asking.start()
    asking.join()
    (process,) = spawned
    wait_until(lambda: Path(f"/proc/{process.pid}/comm").read_text() == "sleep\n", "it has begun")
    assert os.getsid(process.pid) == process.pid
    assert process.poll() is None
    assert children.stop(process) == -signal.SIGTERM


def test_a_child_gets_its_environment_directory_output_and_default_signals(
    children: Children, tmp_path: Path
) -> None:
    script = 'echo "$WHAT in $(pwd)"; grep SigIgn /proc/self/status; cat'
    with (tmp_path / "output").open("wb") as output:
        environment = {"PATH": os.environ["PATH"], "WHAT": "here"}
        process = children.spawn(["sh", "-c", script], env=environment, cwd=tmp_path, stdout=output)
    assert process.wait(30) == 0  # cat too: nothing comes from standard input
    first, second = (tmp_path / "output").read_text(encoding="utf-8").splitlines()
    assert first == f"here in {tmp_path}"
    assert int(second.split()[1], 16) & 1 << (signal.SIGPIPE - 1) == 0


def test_a_child_that_ignores_sigterm_is_killed_with_what_it_started(
    children: Children, tmp_path: Path
) -> None:
    script = 'trap "" TERM; sleep 60 & echo $! > grandchild; echo ready > ready; wait'
    process = children.spawn(["sh", "-c", script], cwd=tmp_path)
    wait_until((tmp_path / "ready").exists, "the trap is set")
    grandchild = int((tmp_path / "grandchild").read_text(encoding="ascii"))
    assert runs(grandchild)
    assert children.stop(process, grace_s=0.1) == -signal.SIGKILL
    wait_until(lambda: not runs(grandchild), "the grandchild has ended")


def test_a_stopped_child_obeys_sigterm(children: Children) -> None:
    process = children.spawn(["sleep", "60"])
    process.send_signal(signal.SIGSTOP)
    assert children.stop(process) == -signal.SIGTERM


def test_a_program_that_does_not_exist_is_an_error(children: Children) -> None:
    with pytest.raises(FileNotFoundError, match="no-such-program"):
        children.spawn(["no-such-program"])


def test_closed_children_take_no_more(children: Children) -> None:
    directory = children.directory("etcd-grpc-test-")
    process = children.spawn(["sleep", "60"])
    children.close()
    children.close()
    assert process.returncode == -signal.SIGTERM
    assert not directory.exists()
    with pytest.raises(RuntimeError, match="closed"):
        children.spawn(["true"])


def test_dropped_children_warn_and_end() -> None:
    dropped = Children("forgotten")
    process = dropped.spawn(["sleep", "60"])
    with pytest.warns(ResourceWarning, match="forgotten: never stopped"):
        del dropped
    assert process.returncode is not None


def test_the_kernel_ends_a_child_when_neither_parent_nor_janitor_can(
    launch: Callable[..., Offspring],
) -> None:
    program = launch(
        """
        import os, signal
        from etcd_grpc.processes.children import Children
        children = Children()
        os.kill(children._janitor.pid, signal.SIGKILL)
        process = children.spawn(["sleep", "60"])
        while open(f"/proc/{process.pid}/comm").read() != "sleep\\n":
            pass
        print("up", flush=True)
        signal.pause()
        """
    )
    assert program.process.stdout.readline() == "up\n"
    program.process.kill()
    program.assert_nothing_left()


def test_the_janitor_kills_only_whom_it_was_told_of(tmp_path: Path) -> None:
    directory = tmp_path / "directory"
    (directory / "inside").mkdir(parents=True)
    sleepers = [subprocess.Popen(["sleep", "60"], start_new_session=True) for _ in range(3)]
    told, reused, forgotten = (sleeper.pid for sleeper in sleepers)
    commands = [
        f"+{told} {_janitor.start_time(told)}",
        f"+{reused} 1",  # the pid is another process's by now
        f"+{forgotten} {_janitor.start_time(forgotten)}",
        f"-{forgotten}",
        f"d{os.fsencode(directory).hex()}",
        "q",
    ]
    try:
        subprocess.run(
            [sys.executable, "-I", "-S", _janitor.__file__, str(os.getpid())],
            input="".join(f"{command}\n" for command in commands).encode("ascii"),
            timeout=60,
            check=True,
        )
        assert sleepers[0].wait(30) == -signal.SIGKILL
        assert [sleeper.poll() for sleeper in sleepers[1:]] == [None, None]
        assert not directory.exists()
        assert tmp_path.exists()
    finally:
        for sleeper in sleepers:
            sleeper.kill()
            sleeper.wait()
