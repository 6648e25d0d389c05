"""The demonstration as its user runs it: a command, in a terminal or not, interrupted or not."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pty
import re
import signal
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

COMMAND = str(Path(sys.executable).with_name("etcd-grpc"))
PHASES = ["balanced", "scale_out", "graceful_stop", "crash", "etcd_member_loss"]
SERVING = {
    "balanced": 3,
    "scale_out": 4,
    "graceful_stop": 3,
    "crash": 2,
    "etcd_member_loss": 3,
}
INTERRUPTED = 130

# Runs its arguments in a terminal of their own: what is typed as Ctrl-C reaches them as a signal.
IN_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""


@dataclass
class Place:
    """Where a run leaves its traces: a directory for temporary files, a mark in each environment."""

    directory: Path
    mark: str
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
        return {**kept, "TMPDIR": str(self.directory), "DEMO_TEST_MARK": self.mark}

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [COMMAND, "demo", *arguments],
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def processes(self) -> list[str]:
        """The command lines of all processes that come from a run here."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it has just ended
                if self.mark.encode() in (process / "environ").read_bytes():
                    line = (process / "cmdline").read_bytes().replace(b"\0", b" ")
                    found.append(line.decode(errors="replace"))
        return found

    def assert_clean(self) -> None:
        assert self.processes() == []
        assert list(self.directory.iterdir()) == []


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    directory = tmp_path / "tmp"
    directory.mkdir()
    here = Place(directory, uuid.uuid4().hex)
    yield here
    for process in here.started:  # which have ended, unless the test has failed
        process.kill()
        process.communicate()
    wait_for(lambda: not here.processes(), 30, "the end of what the test left")


def wait_for(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s} s"
        time.sleep(0.02)


@pytest.mark.timeout(240)
def test_all_phases_hold_and_nothing_is_left(place: Place) -> None:
    """With the report as JSON on stdout, and the live table on stderr, which is a terminal."""
    with terminal(place, "--json", stdout=subprocess.PIPE) as (process, read):
        screen = read(until=lambda _: process.poll() is not None, timeout_s=200)
        assert process.stdout is not None
        out = process.stdout.read()
    assert process.returncode == 0, (out, plain(screen))
    assert_report(json.loads(out))
    assert_live_table(screen)
    place.assert_clean()


def assert_report(report: dict[str, Any]) -> None:
    assert report["ok"] is True
    assert [phase["name"] for phase in report["phases"]] == PHASES
    assert report["seconds"] < 200
    for phase in report["phases"]:
        assert phase["ok"], phase
        assert (phase["failed"], phase["first_error"], phase["problems"]) == (0, None, [])
        assert phase["calls"] == sum(phase["by_instance"].values())
        shares = phase["steady"].values()
        mean = sum(shares) / len(shares)
        assert len(shares) == SERVING[phase["name"]]
        assert sum(shares) >= 1000
        assert all(abs(share - mean) <= 0.02 * mean for share in shares), phase
    sets = {phase["name"]: set(phase["steady"]) for phase in report["phases"]}
    assert sets["balanced"] < sets["scale_out"]
    assert sets["scale_out"] > sets["graceful_stop"] > sets["crash"]
    assert sets["crash"] < sets["etcd_member_loss"]


def assert_live_table(screen: str) -> None:
    shown, hidden = screen.rindex("\x1b[?25h"), screen.rindex("\x1b[?25l")
    assert hidden < shown, "the cursor stays hidden"
    text = plain(screen)
    assert text.count("etcd_member_loss") > 20, "the table is not drawn again and again"
    assert re.search(r"127\.0\.0\.1:\d+ +killed -9 +serving", text), "etcd lists a killed server"
    *_, end = text.split("Steady shares")
    assert re.findall(r"^ *(\w+) .* held\s*$", end, re.MULTILINE) == PHASES


def test_ctrl_c_typed_twice_in_a_terminal_ends_it(place: Place) -> None:
    with terminal(place) as (process, read):
        read(until=lambda screen: "running" in plain(screen), timeout_s=60)
        os.write(process.terminal, b"\x03")
        read(until=lambda screen: "stopping" in screen, timeout_s=30)
        os.write(process.terminal, b"\x03")
        screen = read(until=lambda _: process.poll() is not None, timeout_s=30)
    assert process.returncode == INTERRUPTED
    assert "Traceback" not in screen
    assert "interrupted" in screen
    place.assert_clean()


def test_elsewhere_it_prints_plain_lines_and_sigterm_ends_it(place: Place) -> None:
    process = place.start()
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line.decode())
        if line.startswith(b"balanced: held"):
            break
    process.terminate()
    out, err = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED
    assert err == b""
    assert "\x1b" not in "".join(lines) + out.decode()
    assert "balanced: three servers share the calls\n" in lines
    place.assert_clean()


@pytest.mark.parametrize("after_s", [0.3, 2, 8])
def test_sigint_at_any_moment_leaves_nothing(place: Place, after_s: float) -> None:
    process = place.start("--json")
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(after_s)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert out == b""
    # A shell calls the first of them 130 too; the second is the end of an interpreter without modules.
    if process.returncode == -signal.SIGINT or err.startswith(b"Fatal Python error: init"):
        assert b"starting" not in err, "only Python's own start may end like this"
    else:
        assert process.returncode == INTERRUPTED
        assert b"Traceback" not in err
    place.assert_clean()


def test_sigkill_leaves_nothing_either(place: Place) -> None:
    process = place.start()
    assert process.stdout is not None
    next(line for line in process.stdout if line.startswith(b"balanced"))
    assert len(place.processes()) > 6
    process.kill()
    process.communicate(timeout=60)
    wait_for(lambda: not place.processes(), 30, "the end of its children")
    place.assert_clean()


@pytest.mark.timeout(240)
def test_a_phase_that_does_not_hold_is_told_and_ends_the_run(place: Place, tmp_path: Path) -> None:
    """With servers that do not withdraw on SIGTERM, which is what graceful_stop is about."""
    (tmp_path / "sitecustomize.py").write_text(
        textwrap.dedent("""
            import signal, sys
            if "server.py" in sys.orig_argv:
                signal.signal = lambda *arguments: None
        """)
    )
    process = place.start(PYTHONPATH=str(tmp_path))
    out, _ = process.communicate(timeout=200)
    assert process.returncode == 1
    text = out.decode()
    assert re.search(r"^  problem: 127\S+ ended with status -15:$", text, re.MULTILINE)
    *_, table = text.split("Steady shares")
    assert re.findall(r"^ (\w+) .* (held|FAILED|not run) *$", table, re.MULTILINE) == [
        ("balanced", "held"),
        ("scale_out", "held"),
        ("graceful_stop", "FAILED"),
        ("crash", "not run"),
        ("etcd_member_loss", "not run"),
    ]
    assert text.splitlines()[-1].startswith("2 of 5 phases held; ")
    place.assert_clean()


def test_without_etcd_it_says_so_in_one_line_and_as_json(place: Place) -> None:
    process = place.start("--json", ETCD_GRPC_ETCD_BIN="/nowhere/etcd")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    report = json.loads(out)
    assert (report["ok"], report["phases"]) == (False, [])
    assert "/nowhere/etcd" in report["error"]
    assert err.decode().splitlines()[-1].startswith("etcd-grpc: ETCD_GRPC_ETCD_BIN is")
    assert b"Traceback" not in err
    place.assert_clean()


class InTerminal(subprocess.Popen[bytes]):
    terminal: int


@contextlib.contextmanager
def terminal(
    place: Place, *arguments: str, stdout: int | None = None
) -> Iterator[tuple[InTerminal, Callable[..., str]]]:
    """The demo in a terminal of 100 columns; ``read`` returns all that came to the screen."""
    ours, theirs = pty.openpty()
    environment = {**place.environment, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"}
    process = InTerminal(
        [sys.executable, "-c", IN_TERMINAL, COMMAND, "demo", *arguments],
        env=environment,
        stdin=theirs,
        stdout=theirs if stdout is None else stdout,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    os.set_blocking(ours, False)
    process.terminal = ours
    screen = bytearray()

    def read(until: Callable[[str], bool], timeout_s: float) -> str:
        def seen() -> bool:
            try:
                while chunk := os.read(ours, 65536):
                    screen.extend(chunk)
            except BlockingIOError:
                pass
            except OSError as error:  # Linux: the other end is closed
                if error.errno != errno.EIO:
                    raise
            return until(screen.decode(errors="replace"))

        wait_for(seen, timeout_s, "the screen")
        seen()  # what came between the last look and the end
        return screen.decode(errors="replace")

    try:
        yield process, read
    finally:
        process.kill()
        process.communicate()
        os.close(ours)


def plain(screen: str) -> str:
    """Without colours and cursor movements."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen)
