"""The parts of the demonstration that decide: what a phase must hold, and what is missing."""

from __future__ import annotations

import importlib.util
from collections import Counter
from pathlib import Path

import pytest

from etcd_grpc.demo.load import CallError, Tally
from etcd_grpc.demo.phases import judge
from etcd_grpc.demo.servers import Fleet
from etcd_grpc.demo.source import check_generator
from etcd_grpc.demo.waiting import DemoError, Interrupts
from etcd_grpc.errors import MissingExtraError
from etcd_grpc.processes.children import Children


def test_without_grpcio_tools_it_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'etcd-grpc\[demo\]'"):
        check_generator()


def test_a_server_that_does_not_start_is_told_with_what_it_printed(tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text("print('no port for me'); raise SystemExit(3)")
    with Children("test") as children:
        fleet = Fleet(tmp_path, {}, 5, children, Interrupts())
        with pytest.raises(DemoError, match="no port for me"):
            fleet.start(1)


def counted(**calls: int) -> Tally:
    return Tally(begun=sum(calls.values()), by_instance=Counter(calls))


@pytest.mark.parametrize(
    ("steady", "problem"),
    [
        (counted(a=1000, b=1000), None),
        (counted(a=1019, b=981), None),
        (counted(a=1030, b=970), "differ by 3.0%"),
        (counted(a=2000), "b answered no call"),
        (counted(a=1000, b=1000, gone=1), "gone answered 1 calls"),
        (counted(a=10, b=10), "only 20 calls"),
    ],
)
def test_shares_are_judged(steady: Tally, problem: str | None) -> None:
    problems = judge(counted(a=2000), steady, ["a", "b"])
    assert (problem is None) == (problems == [])
    assert problem is None or problem in problems[0]


def test_one_failed_call_in_a_phase_is_enough() -> None:
    phase = counted(a=2000)
    phase.ended(None, CallError("UNAVAILABLE", "connection reset"), 0.1)
    (problem,) = judge(phase, counted(a=1000, b=1000), ["a", "b"])
    assert problem == "1 of 2001 calls failed, the first with UNAVAILABLE: connection reset"
