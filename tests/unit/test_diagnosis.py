"""Why instances cannot be connected: when they are looked at, and who waits for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator

import pytest

import etcd_grpc
from etcd_grpc.channel.diagnosis import Diagnosis
from etcd_grpc.telemetry import events


class Doctor:
    """Answers when it is let."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.told = 0
        self.may = threading.Event()
        self.news = asyncio.Event()

    def look(self, address: str) -> str:
        self.may.wait(10)
        self.asked.append(address)
        return "" if address == "silent:1" else f"{address} is expired"

    def tell(self) -> None:
        self.told += 1
        self.news.set()


@pytest.fixture
async def doctor(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Doctor]:
    # However slow the machine is: only one test is about those who lose patience.
    monkeypatch.setattr("etcd_grpc.channel.diagnosis._PATIENCE_S", 60.0)
    made = Doctor()
    yield made
    made.may.set()


@pytest.fixture
def told() -> Iterator[list[etcd_grpc.Event]]:
    seen: list[etcd_grpc.Event] = []
    with etcd_grpc.listen(seen.append):
        yield seen


def begin(doctor: Doctor) -> Diagnosis:
    return Diagnosis("greeter", doctor.look, asyncio.get_running_loop(), doctor.tell)


async def test_a_failing_instance_is_looked_at_once_and_waited_for(doctor: Doctor) -> None:
    diagnosis = begin(doctor)
    diagnosis.notice(["a:1"])
    assert diagnosis.pending
    assert not diagnosis.why(["a:1"])
    doctor.may.set()
    async with asyncio.timeout(10):
        await doctor.news.wait()
    assert not diagnosis.pending
    assert diagnosis.why(["b:1", "a:1"]) == "a:1 is expired"
    diagnosis.notice(["a:1"])
    assert not diagnosis.pending
    assert doctor.asked == ["a:1"]


async def test_nobody_waits_for_long(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("etcd_grpc.channel.diagnosis._PATIENCE_S", 0.05)
    diagnosis = begin(doctor)
    diagnosis.notice(["a:1"])
    async with asyncio.timeout(10):
        await doctor.news.wait()
    assert not diagnosis.pending
    assert not diagnosis.why(["a:1"])


async def test_of_many_some_are_looked_at(doctor: Doctor, told: list[etcd_grpc.Event]) -> None:
    doctor.may.set()
    diagnosis = begin(doctor)
    diagnosis.notice(["silent:1", *(f"a:{n}" for n in range(1, 100))])
    async with asyncio.timeout(10):
        await doctor.news.wait()
    assert doctor.asked == ["silent:1", "a:1", "a:2"]
    assert diagnosis.why(["silent:1"]) == ""
    async with asyncio.timeout(10):
        while len(told) < 2:
            await asyncio.sleep(0.01)
    assert told == [events.InstanceRefused("greeter", f"a:{n}", f"a:{n} is expired") for n in (1, 2)]


async def test_what_is_closed_tells_nothing(doctor: Doctor) -> None:
    diagnosis = begin(doctor)
    diagnosis.notice(["a:1"])
    diagnosis.close()
    doctor.may.set()
    async with asyncio.timeout(10):
        while any(t.name == "etcd-grpc-certificate" for t in threading.enumerate()):
            await asyncio.sleep(0.01)
    await asyncio.sleep(0)
    assert not doctor.told
