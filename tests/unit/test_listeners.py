"""Listeners: told in order, isolated from each other and from what tells them."""

from __future__ import annotations

import inspect
import logging
import os
import threading

import pytest

from etcd_grpc.telemetry import Event, emit, events, listen
from etcd_grpc.telemetry.listeners import _MAILBOX


def number(count: int) -> Event:
    return events.Stale("greeter", str(count))


def test_events_come_in_order_until_the_handle_is_closed() -> None:
    told: list[Event] = []
    with listen(told.append):
        for count in range(100):
            emit(number(count))
    emit(number(100))
    assert told == [number(count) for count in range(100)]


def test_the_thread_ends_with_the_handle() -> None:
    handle = listen(lambda event: None)
    thread = handle._thread
    assert thread.name == "etcd-grpc-listener"
    assert thread.is_alive()
    handle.close()
    handle.close()
    assert not thread.is_alive()


def test_a_listener_that_raises_is_logged_and_hears_the_next(caplog: pytest.LogCaptureFixture) -> None:
    told: list[Event] = []

    def raises_once(event: Event) -> None:
        told.append(event)
        if len(told) == 1:
            raise RuntimeError("a defect of the application")

    others: list[Event] = []
    with listen(raises_once), listen(others.append):
        emit(number(1))
        emit(number(2))
    assert told == others == [number(1), number(2)]
    assert "a defect of the application" in caplog.text


def test_a_listener_that_blocks_harms_nobody_and_gets_the_latest_afterwards() -> None:
    told: list[Event] = []
    others: list[Event] = []
    blocked, let_go = threading.Event(), threading.Event()

    def blocks(event: Event) -> None:
        told.append(event)
        blocked.set()
        let_go.wait(10)

    total = _MAILBOX + 500
    with listen(blocks), listen(others.append) as quick:
        emit(number(0))
        assert blocked.wait(10)
        for count in range(1, total):
            emit(number(count))
            if count % 500 == 0:  # let the quick one keep pace, as time would
                while quick._mailbox:
                    threading.Event().wait(0.001)
        let_go.set()
    assert others == [number(count) for count in range(total)]
    assert told[-1] == number(total - 1)
    (dropped,) = [event for event in told if isinstance(event, events.Dropped)]
    assert dropped.count + len(told) - 1 == total


def test_a_listener_may_close_itself() -> None:
    told: list[Event] = []

    def once(event: Event) -> None:
        told.append(event)
        handle.close()

    handle = listen(once)
    emit(number(1))
    handle._thread.join(10)
    emit(number(2))
    assert told == [number(1)]


def test_an_event_is_logged_at_its_level(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        emit(events.Stale("greeter", "a debug line"))
        emit(events.LeaseLost(0x1F))
    assert caplog.messages == ["the lease 1f was lost; registering again under a new one"]
    assert caplog.records[0].name == "etcd_grpc.registry"


@pytest.mark.filterwarnings("ignore:This process.*multi-threaded:DeprecationWarning")
def test_a_forked_child_has_its_own_listeners_thread() -> None:
    read, write = os.pipe()
    with listen(lambda event: os.write(write, f"{event}\n".encode())):
        child = os.fork()
        if child == 0:
            emit(number(7))
            os._exit(0 if b"7" in os.read(read, 100) else 1)
        _, status = os.waitpid(child, 0)
    os.close(read)
    os.close(write)
    assert status == 0


EVENTS = [getattr(events, name) for name in events.__all__ if name != "Event"]


@pytest.mark.parametrize("kind", EVENTS, ids=lambda kind: kind.__name__)
def test_every_event_is_one_line_and_names_what_it_is_about(kind: type[Event]) -> None:
    values = {
        "str": "some-text",
        "str | None": None,
        "int | None": None,
        "float | None": None,
        "int": 42,
        "float": 1.5,
        "bool": True,
        "tuple[Change, ...]": (),
        "tuple[str, ...]": ("some.Service",),
    }
    fields = {
        name: values[parameter.annotation]
        for name, parameter in inspect.signature(kind).parameters.items()
    }
    event = kind(**fields)
    assert "\n" not in str(event)
    assert len(str(event)) > 15
    assert kind.__doc__
