"""When what etcd says of a service is saved, on a disk that takes its time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.waiting import until

from etcd_grpc import saver
from etcd_grpc.saver import Saver


class SlowFile:
    """Each save waits for its turn."""

    path = Path("somewhere")

    def __init__(self) -> None:
        self.written: list[str] = []
        self.begun = 0
        self.turns = threading.Semaphore(0)

    def save(self, saved: str) -> None:
        self.begun += 1
        assert self.turns.acquire(timeout=20)
        self.written.append(saved)

    def load(self) -> str | None:
        raise NotImplementedError


@pytest.fixture
def file(monkeypatch: pytest.MonkeyPatch) -> SlowFile:
    monkeypatch.setattr(saver, "_SAVE_AFTER_S", 0.01)
    return SlowFile()


def made(file: SlowFile, current: Callable[[], str]) -> Saver[str]:
    return Saver(file, "greeter", asyncio.get_running_loop(), current, lambda _found, _path: None)


async def test_the_latest_is_written_last(file: SlowFile) -> None:
    value = "old"
    saving = made(file, lambda: value)
    saving.save_soon()
    await until(lambda: file.begun, "the first save has begun")
    value = "new"
    saving.save_soon()
    saving.close()  # which saves at once
    file.turns.release(2)
    await until(lambda: len(file.written) == 2, "both are written")
    assert file.written == ["old", "new"]


async def test_a_disk_that_hangs_is_given_no_second_file(file: SlowFile) -> None:
    values = iter(["first", "second"])
    saving = made(file, lambda: next(values))
    saving.save_soon()
    await until(lambda: file.begun, "the first save has begun")
    before = threading.active_count()
    for _ in range(20):
        saving.save_soon()
        await asyncio.sleep(0.01)
    assert threading.active_count() <= before
    file.turns.release(2)
    await until(lambda: len(file.written) == 2, "what came meanwhile is written, once")
    saving.close()
    assert file.written == ["first", "second"]
