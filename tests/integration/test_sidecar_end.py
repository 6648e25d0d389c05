"""How a sidecar and its program end: in order, in a hurry, by themselves, by SIGKILL."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.calls import free_port
from tests.support.sidecar import PATIENCE_S, PORT_PROGRAM, Sidecar, runs
from tests.support.waiting import wait_until

from etcd_grpc.devcluster import Cluster

Start = Callable[..., Sidecar]


@pytest.fixture
def start(service: str, etcd: str, tmp_path: Path) -> Iterator[Start]:
    """Start a sidecar with options, and the port program with arguments; all end with the test."""
    with contextlib.ExitStack() as stack:

        def run(
            *options: str,
            arguments: tuple[str, ...] = (),
            program: list[str] = PORT_PROGRAM,
            at: str = etcd,
            **more: object,
        ) -> Sidecar:
            sidecar = Sidecar(service, at, tmp_path, [*options], program, [*arguments], **more)
            return stack.enter_context(sidecar)

        yield run


# In order.


def test_clients_are_told_then_the_key_goes_and_only_then_the_program_gets_its_signal(start, raw):
    sidecar = start("--settle", "3", arguments=("--linger", "4", "--status", "7"))
    sidecar.registered(raw)
    sidecar.signal(signal.SIGTERM)
    wait_until(lambda: sidecar.status(raw) == "draining", "draining", PATIENCE_S)
    while "got SIGTERM" not in sidecar.out:
        out, status = sidecar.out, sidecar.status(raw)  # in this order: who got it has no key any more
        assert status in {"draining", ""}
        assert status == "" or "got" not in out
    assert sidecar.entry(raw) is None
    assert sidecar.process.poll() is None  # it waits for the program
    assert sidecar.end() == 7


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_program_gets_the_signal_that_the_sidecar_got(start, raw, number):
    sidecar = start("--settle", "0")
    sidecar.registered(raw)
    sidecar.signal(number)
    assert sidecar.end() == 0
    assert sidecar.said(r"got (\w+)")[1] == number.name
    assert sidecar.entry(raw) is None


def test_other_signals_are_passed_on_and_change_nothing(start, raw):
    sidecar = start()
    sidecar.registered(raw)
    names = ["SIGHUP", "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGRTMIN"]
    for name in names:
        sidecar.signal(signal.Signals[name])
        sidecar.said(f"got {name}")
    assert sidecar.status(raw) == "serving"
    assert sidecar.terminate() == 0


def test_signal_before_the_program_is_ready_is_passed_on_at_once(start, raw):
    sidecar = start("--settle", "600", arguments=("--delay", "600", "--status", "4"))
    sidecar.said("^started")
    assert sidecar.terminate() == 4
    assert sidecar.entry(raw) is None


def test_stopped_program_can_obey_when_it_is_to_end(start, raw):
    sidecar = start("--settle", "0", arguments=("--status", "5"))
    sidecar.registered(raw)
    os.kill(sidecar.program, signal.SIGSTOP)
    sidecar.withdrawn(raw)
    assert sidecar.terminate() == 5


def test_standard_streams_are_the_programs(start, raw):
    sidecar = start()
    sidecar.registered(raw)
    assert sidecar.process.stdin is not None
    sidecar.process.stdin.write(b"to the program\n")
    sidecar.process.stdin.flush()
    sidecar.said("^read to the program$")
    assert "etcd-grpc" not in sidecar.out
    assert sidecar.terminate() == 0


def test_quiet_sidecar_of_a_well_program_says_nothing(start, raw):
    sidecar = start("--quiet")
    sidecar.registered(raw)
    assert sidecar.terminate() == 0
    assert sidecar.err == ""


# In a hurry.


def test_program_that_does_not_end_is_killed_when_its_grace_is_over(start, raw):
    sidecar = start("--settle", "0", "--grace", "3", arguments=("--ignore-term",))
    sidecar.registered(raw)
    assert sidecar.terminate() == 128 + signal.SIGKILL
    assert "got SIGTERM" in sidecar.out
    assert "did not end within 3 s" in sidecar.err
    assert not runs(sidecar.program)
    assert sidecar.entry(raw) is None


@pytest.mark.parametrize("settle_s", ["0", "600"], ids=["stopping", "draining"])
def test_row_24_second_signal_ends_everything_at_once(start, raw, settle_s):
    sidecar = start("--settle", settle_s, "--grace", "600", arguments=("--ignore-term",))
    sidecar.registered(raw)
    sidecar.signal(signal.SIGTERM)
    if settle_s == "0":
        sidecar.said("got SIGTERM")
    else:
        wait_until(lambda: sidecar.status(raw) == "draining", "draining", PATIENCE_S)
    began = time.monotonic()
    assert sidecar.terminate() == 128 + signal.SIGKILL
    assert time.monotonic() - began < 10  # a second, where nothing else runs
    assert sidecar.entry(raw) is None
    assert not runs(sidecar.program)


def test_row_25_etcd_that_is_down_does_not_keep_the_program_from_its_end(start, tmp_path):
    port = free_port()
    with Cluster(1, client_ports=[port]) as cluster:
        sidecar = start(
            "--grace", "5", "--ttl", "60", at=f"127.0.0.1:{port}", arguments=("--status", "3")
        )
        wait_until(lambda: "is registered" in sidecar.err, "registered", PATIENCE_S)
        cluster.kill(0)
        began = time.monotonic()
        assert sidecar.terminate() == 3
        assert time.monotonic() - began < 15  # settle, and a moment for etcd
        assert "got SIGTERM" in sidecar.out


# By itself.


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGKILL, 137), (signal.SIGSEGV, 139), (signal.SIGTERM, 6)]
)
def test_program_that_ends_by_itself_is_deleted_at_once_and_its_status_passed_on(
    start, raw, number, status
):
    sidecar = start("--ttl", "600", "--settle", "600", arguments=("--status", "6"))
    sidecar.registered(raw)
    os.kill(sidecar.program, number)
    assert sidecar.end() == status
    assert sidecar.entry(raw) is None
    assert f"has ended with status {status}" in sidecar.err


def test_program_that_ends_before_it_is_ready_is_told_with_the_last_answer(start, raw):
    sidecar = start(program=["sh", "-c", "sleep 3; exit 9"])
    assert sidecar.end() == 9
    assert "has ended with status 9 before it was ready" in sidecar.err
    assert "Connection refused" in sidecar.err
    assert raw.get(f"{sidecar.service}/") == {}


def test_what_the_program_has_started_and_left_behind_ends_with_it(start, raw):
    sidecar = start(arguments=("--child",))
    sidecar.registered(raw)
    child = int(sidecar.said(r"^child (\d+)$")[1])
    os.kill(sidecar.program, signal.SIGKILL)
    assert sidecar.end() == 137
    wait_until(lambda: not runs(child), "the child has ended", PATIENCE_S)


# By SIGKILL.


def test_killed_sidecar_leaves_no_program_and_its_key_goes_with_the_lease(start, raw):
    sidecar = start("--ttl", "2", arguments=("--child",))
    sidecar.registered(raw)
    child = int(sidecar.said(r"^child (\d+)$")[1])
    program = sidecar.program
    sidecar.signal(signal.SIGKILL)
    assert sidecar.end() == -signal.SIGKILL
    wait_until(lambda: not runs(program), "the program has ended", PATIENCE_S)
    wait_until(lambda: not runs(child), "its child has ended", PATIENCE_S)
    sidecar.withdrawn(raw)
