"""Connectivity callbacks: the latest state, on a thread that lives only to tell it."""

from __future__ import annotations

import logging
import queue
import threading

import grpc
import pytest
from tests.support.threads import no_thread_begins

from etcd_grpc.channel.watchers import StateWatchers

IDLE = grpc.ChannelConnectivity.IDLE
CONNECTING = grpc.ChannelConnectivity.CONNECTING
READY = grpc.ChannelConnectivity.READY
FAILURE = grpc.ChannelConnectivity.TRANSIENT_FAILURE
SHUTDOWN = grpc.ChannelConnectivity.SHUTDOWN

PATIENCE_S = 10.0


class Listener:
    """Remembers what it is told, and on which thread."""

    def __init__(self) -> None:
        self.told: queue.SimpleQueue[tuple[grpc.ChannelConnectivity, threading.Thread]]
        self.told = queue.SimpleQueue()

    def __call__(self, state: grpc.ChannelConnectivity) -> None:
        self.told.put((state, threading.current_thread()))

    def next_state(self) -> grpc.ChannelConnectivity:
        return self.told.get(timeout=PATIENCE_S)[0]

    def next_thread(self) -> threading.Thread:
        return self.told.get(timeout=PATIENCE_S)[1]


def ended(thread: threading.Thread) -> bool:
    thread.join(timeout=PATIENCE_S)
    return not thread.is_alive()


@pytest.mark.parametrize("state", grpc.ChannelConnectivity)
def test_new_callback_hears_the_state_there_is(state: grpc.ChannelConnectivity) -> None:
    watchers, listener = StateWatchers(), Listener()
    watchers.add(listener, state)
    assert listener.next_state() is state


def test_every_callback_hears_every_lasting_state() -> None:
    watchers, listeners = StateWatchers(), [Listener(), Listener()]
    for listener in listeners:
        watchers.add(listener, IDLE)
    for listener in listeners:
        assert listener.next_state() is IDLE
    for state in (CONNECTING, READY, FAILURE, READY, SHUTDOWN):
        watchers.changed(state)
        for listener in listeners:
            assert listener.next_state() is state


def test_callback_runs_on_a_thread_of_its_own_that_ends() -> None:
    watchers, listener = StateWatchers(), Listener()
    watchers.add(listener, IDLE)
    first = listener.next_thread()
    assert first is not threading.current_thread()
    assert ended(first)
    watchers.changed(READY)
    second = listener.next_thread()
    assert second is not first
    assert ended(second)


def test_without_callbacks_no_thread_is_started() -> None:
    watchers = StateWatchers()
    with no_thread_begins():
        for state in (CONNECTING, READY, FAILURE):
            watchers.changed(state)


def test_same_state_is_told_once() -> None:
    watchers, listener = StateWatchers(), Listener()
    watchers.add(listener, READY)
    assert ended(listener.next_thread())
    watchers.changed(READY)
    watchers.changed(SHUTDOWN)
    assert listener.next_state() is SHUTDOWN


def test_slow_callback_hears_the_latest_state_and_not_the_ones_in_between() -> None:
    watchers, listener = StateWatchers(), Listener()
    entered, go_on = threading.Event(), threading.Event()

    def slow(state: grpc.ChannelConnectivity) -> None:
        entered.set()
        assert go_on.wait(PATIENCE_S)
        listener(state)

    watchers.add(slow, IDLE)
    assert entered.wait(PATIENCE_S)
    for state in (CONNECTING, READY, FAILURE, CONNECTING, READY):
        watchers.changed(state)
    go_on.set()
    assert [listener.next_state() for _ in range(2)] == [IDLE, READY]
    watchers.changed(SHUTDOWN)
    assert listener.next_state() is SHUTDOWN


def test_one_thread_tells_everything() -> None:
    watchers = StateWatchers()
    entered, go_on = threading.Event(), threading.Event()
    before = set(threading.enumerate())

    def blocks(state: grpc.ChannelConnectivity) -> None:
        entered.set()
        assert go_on.wait(PATIENCE_S)

    watchers.add(blocks, IDLE)
    assert entered.wait(PATIENCE_S)
    watchers.changed(READY)
    watchers.add(blocks, READY)
    (teller,) = {t for t in threading.enumerate() if t.name == "etcd-grpc-callbacks"} - before
    go_on.set()
    assert ended(teller)


def test_callback_that_raises_is_logged_and_the_others_hear(caplog: pytest.LogCaptureFixture) -> None:
    watchers, listener = StateWatchers(), Listener()

    def raises(state: grpc.ChannelConnectivity) -> None:
        raise RuntimeError(f"no {state.name}")

    with caplog.at_level(logging.ERROR, "etcd_grpc.channel"):
        watchers.add(raises, IDLE)
        watchers.add(listener, IDLE)
        assert listener.next_state() is IDLE
        watchers.changed(READY)
        assert ended(listener.next_thread())
    assert "no IDLE" in caplog.text
    assert "no READY" in caplog.text


def test_removed_callback_hears_nothing_more() -> None:
    watchers, removed, kept = StateWatchers(), Listener(), Listener()
    for listener in (removed, kept):
        watchers.add(listener, IDLE)
        assert listener.next_state() is IDLE
    watchers.remove(removed)
    watchers.changed(READY)
    assert ended(kept.next_thread())
    assert removed.told.empty()


def test_callback_may_remove_itself() -> None:
    watchers, listener = StateWatchers(), Listener()

    def once(state: grpc.ChannelConnectivity) -> None:
        watchers.remove(once)
        listener(state)

    watchers.add(once, IDLE)
    assert ended(listener.next_thread())
    watchers.changed(READY)
    assert listener.told.empty()


def test_callback_may_add_another() -> None:
    watchers, listener = StateWatchers(), Listener()

    def adds(state: grpc.ChannelConnectivity) -> None:
        watchers.remove(adds)
        watchers.add(listener, state)

    watchers.add(adds, CONNECTING)
    assert listener.next_state() is CONNECTING


def test_bound_methods_of_two_objects_are_two_callbacks() -> None:
    watchers, first, second = StateWatchers(), Listener(), Listener()
    watchers.add(first.__call__, IDLE)
    watchers.add(second.__call__, IDLE)
    assert (first.next_state(), second.next_state()) == (IDLE, IDLE)
    watchers.remove(first.__call__)
    watchers.changed(READY)
    assert second.next_state() is READY
    assert first.told.empty()


def test_removing_what_was_never_added_does_nothing() -> None:
    StateWatchers().remove(print)
