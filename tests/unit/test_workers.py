"""What can be checked of workers without a process: names, pickles, output, sums."""

from __future__ import annotations

import dataclasses
import errno
import functools
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import etcd_grpc
from etcd_grpc.errors import ConfigurationError
from etcd_grpc.server.load_meter import Counts
from etcd_grpc.server.options import serve_options
from etcd_grpc.server.workers import job as jobs
from etcd_grpc.server.workers import parent as workers
from etcd_grpc.server.workers.fleet import Fleet, Lines, Worker
from etcd_grpc.server.workers.importing import Importable
from etcd_grpc.server.workers.job import Job, packed, unpacked
from etcd_grpc.server.workers.supervise import supervise
from etcd_grpc.server.workers.supervisor import GIVE_UP_AFTER
from etcd_grpc.telemetry.events import WorkerCrashed

OPTIONS = serve_options(service="s", etcd="127.0.0.1:1")


def add_servicers(server: Any) -> None:
    """Can be imported."""


async def add_coroutine(server: Any) -> None:
    """For asyncio."""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes a module that can be imported; returns its name."""
    monkeypatch.syspath_prepend(tmp_path)
    made: list[str] = []

    def make(source: str) -> str:
        name = f"made_{os.getpid()}_{len(made)}"
        (tmp_path / f"{name}.py").write_text(source)
        made.append(name)
        return name

    yield make
    for name in made:
        sys.modules.pop(name, None)


# Names.


@pytest.mark.parametrize(
    "name", ["", "module", "module:", ":add", "a b:add", "module:add()", "../x:add", "module:a:b"]
)
def test_what_names_no_function_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"package\.module:add_servicers"):
        Importable(name)


def test_a_function_is_imported(module: Any) -> None:
    name = module("class A:\n    @staticmethod\n    def add(server): return 1\n")
    assert Importable(f"{name}:A.add").load()(None) == 1


@pytest.mark.parametrize(
    ("source", "attribute", "said"),
    [
        ("def add_it(server): ...", "add", "has no add; it has add_it"),
        ("add = 7", "add", "is int, and must be a function"),
        (
            "import no_such_thing_at_all",
            "add",
            "ModuleNotFoundError: No module named 'no_such_thing_at_all'",
        ),
        ("\n\nraise ValueError('broken')", "add", r"ValueError: broken \(.*, line 3\)"),
        ("def add(:", "add", "SyntaxError"),
    ],
)
def test_what_cannot_be_imported_is_said_in_one_line(
    module: Any, source: str, attribute: str, said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said) as caught:
        Importable(f"{module(source)}:{attribute}").load()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["no_such_thing.module:add", "json.no_such_thing:add"])
def test_an_unknown_module_is_said_to_be_unknown(name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"there is no module .*no_such_thing"):
        Importable(name).load()


# Jobs.


@pytest.mark.parametrize(("add", "is_asyncio"), [(add_servicers, False), (add_coroutine, True)])
def test_a_job_travels_and_knows_its_world(add: Any, is_asyncio: bool) -> None:
    raw = packed(Job(add, OPTIONS))
    there = unpacked({}, raw)
    assert there.options == OPTIONS
    assert there.load() == (add, is_asyncio)
    assert Job(add_servicers, OPTIONS, asyncio=True).load()[1]


def test_a_partial_of_a_function_travels() -> None:
    function, _ = unpacked({}, packed(Job(functools.partial(add_servicers, server=1), OPTIONS))).load()
    assert isinstance(function, functools.partial)
    assert function.func is add_servicers


def test_what_cannot_travel_is_named() -> None:
    def local(server: Any) -> None: ...

    for job, what in (
        (Job(lambda server: None, OPTIONS), "add_servicers=.*<lambda>"),
        (Job(local, OPTIONS), "add_servicers=.*local"),
        (Job(add_servicers, OPTIONS, on_ready=local), "on_ready="),
        (
            Job(add_servicers, dataclasses.replace(OPTIONS, interceptors=[local])),
            "interceptors=",
        ),
    ):
        with pytest.raises(ConfigurationError, match=what):
            packed(job)


def test_a_worker_whose_program_serves_on_import_is_told_to_guard_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jobs, "_preparing", [True])
    with pytest.raises(ConfigurationError, match='if __name__ == "__main__"'):
        supervise(Job(add_servicers, OPTIONS))


@pytest.mark.parametrize("workers", [0, -1, 1.5, True, "2"])
def test_a_number_of_workers_that_is_none_is_refused(workers: Any) -> None:
    with pytest.raises(ConfigurationError, match="workers is"):
        dataclasses.replace(OPTIONS, workers=workers)


def test_more_workers_than_ports_are_refused() -> None:
    options = dataclasses.replace(OPTIONS, port=65534, workers=3)
    with pytest.raises(ConfigurationError, match="would need port 65536"):
        supervise(Job(add_servicers, options))


def test_workers_that_would_be_told_as_one_address_are_refused() -> None:
    options = dataclasses.replace(OPTIONS, port=5000, advertise="127.0.0.1:80", workers=2)
    with pytest.raises(ConfigurationError, match=r"127\.0\.0\.1:80"):
        supervise(Job(add_servicers, options))


def test_a_system_that_starts_no_process_is_survived_until_it_is_hopeless(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    attempts: list[int] = []

    def refuse(key: int, order: Any) -> Any:
        attempts.append(key)
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(workers, "Child", refuse)
    monkeypatch.setattr(workers, "_FIRST_DELAY_S", 0.001)
    told: list[Any] = []
    with etcd_grpc.listen(told.append), pytest.raises(etcd_grpc.errors.WorkerError):
        supervise(Job(add_servicers, dataclasses.replace(OPTIONS, workers=2)))
    # One of the two may be tried once more before the other is hopeless, too.
    assert 2 * GIVE_UP_AFTER <= len(attempts) < 3 * GIVE_UP_AFTER
    crashes = [event for event in told if isinstance(event, WorkerCrashed)]
    assert "cannot be started: Resource temporarily unavailable" in str(crashes[0])


# Output and sums.


@given(st.lists(st.binary(max_size=30)))
def test_output_is_cut_into_its_lines_however_it_arrives(parts: list[bytes]) -> None:
    lines = Lines()
    found = [line for part in parts for line in lines.feed(part)]
    found += lines.end()
    whole = b"".join(parts)
    expected = whole.split(b"\n")
    if not expected[-1]:
        expected.pop()
    assert found == [line.removesuffix(b"\r").decode("utf-8", "replace") for line in expected]


def test_a_line_without_end_is_cut() -> None:
    lines = Lines()
    found = [line for _ in range(100) for line in lines.feed(b"x" * 10_000)]
    assert {len(line) for line in found} == {1 << 16}


def test_a_fleet_sums_its_workers_and_those_that_have_ended() -> None:
    fleet = Fleet(
        (
            Worker(0, 10, "serving", "127.0.0.1:1", Counts(5, 1, 2)),
            Worker(1, 11, "starting", "", Counts(0, 0, 0)),
        ),
        ended=Counts(100, 3, 0),
        restarts=2,
    )
    assert fleet.counts == Counts(105, 4, 2)
    assert str(fleet) == (
        "1 workers serving, 2 restarts: 105 calls, 4 failed, 2 in flight; "
        "worker 0 (process 10) serving at 127.0.0.1:1: 5 calls, 1 failed, 2 in flight; "
        "worker 1 (process 11) starting: 0 calls, 0 failed, 0 in flight"
    )
