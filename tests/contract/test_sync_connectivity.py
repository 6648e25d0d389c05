"""The state of a channel: asked for, subscribed to, waited for."""

from __future__ import annotations

import queue
import threading

import grpc
import pytest
from tests.support.calls import free_port
from tests.support.contract import CHANNELS, ContractServer
from tests.support.waiting import wait_until

STATE = grpc.ChannelConnectivity
OPTIONS = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 100)]


def test_a_subscriber_hears_idle_and_stays_so_if_nobody_connects(world):
    heard: queue.SimpleQueue[grpc.ChannelConnectivity] = queue.SimpleQueue()
    with world.channel() as channel:
        channel.subscribe(heard.put)
        assert heard.get(timeout=10) is STATE.IDLE
        with pytest.raises(queue.Empty):
            heard.get(timeout=0.3)


def test_a_subscriber_that_connects_hears_ready(world):
    heard: list[grpc.ChannelConnectivity] = []
    with world.channel() as channel:
        channel.subscribe(heard.append, try_to_connect=True)
        wait_until(lambda: STATE.READY in heard, "ready")
        assert STATE.TRANSIENT_FAILURE not in heard
        assert heard[-1] is STATE.READY


def test_a_call_connects_and_a_later_subscriber_hears_ready_at_once(world):
    heard: queue.SimpleQueue[grpc.ChannelConnectivity] = queue.SimpleQueue()
    with world.channel() as channel:
        channel.unary_unary("/contract/Echo")(b"x", timeout=10)
        channel.subscribe(heard.put)
        assert heard.get(timeout=10) is STATE.READY


def test_an_unsubscribed_callback_hears_nothing_more(world):
    heard: list[grpc.ChannelConnectivity] = []
    other: list[grpc.ChannelConnectivity] = []
    with world.channel() as channel:
        channel.subscribe(heard.append)
        channel.subscribe(other.append)
        wait_until(lambda: heard and other, "both were told")
        channel.unsubscribe(heard.append)
        channel.unsubscribe(print)  # never subscribed: no matter
        channel.unary_unary("/contract/Echo")(b"x", timeout=10)
        wait_until(lambda: STATE.READY in other, "the other was told")
    assert STATE.READY not in heard


def test_a_callback_that_raises_does_not_silence_the_others(world, caplog):
    heard: list[grpc.ChannelConnectivity] = []

    def broken(_):
        raise LookupError("mine")

    with world.channel() as channel:
        channel.subscribe(broken)
        channel.subscribe(heard.append, try_to_connect=True)
        wait_until(lambda: STATE.READY in heard, "ready")
    assert "mine" in caplog.text


def test_a_callback_comes_on_a_thread_that_is_not_the_callers(world):
    on: list[threading.Thread] = []
    with world.channel() as channel:
        channel.subscribe(lambda _: on.append(threading.current_thread()))
        wait_until(lambda: on, "the callback")
    assert on[0] is not threading.current_thread()
    assert on[0].name != "etcd-grpc-control"


def test_a_closed_channel_tells_nobody_anything(world):
    heard: list[grpc.ChannelConnectivity] = []
    with world.channel() as channel:
        channel.subscribe(heard.append, try_to_connect=True)
        wait_until(lambda: STATE.READY in heard, "ready")
    assert STATE.SHUTDOWN not in heard


def test_channel_ready_future(world):
    told: list[object] = []
    with world.channel() as channel:
        ready = grpc.channel_ready_future(channel)
        ready.add_done_callback(told.append)
        assert ready.result(timeout=10) is None
        wait_until(lambda: told == [ready], "the callback")
        assert (ready.done(), ready.cancelled()) == (True, False)


@pytest.fixture(params=CHANNELS)
def nowhere(request, place):
    """A world where nobody listens, and its first port."""
    ports = [free_port() for _ in range(3 if request.param == "three" else 1)]
    return place(request.param, [f"127.0.0.1:{port}" for port in ports]), ports[0]


def test_channel_ready_future_of_a_channel_that_reaches_nobody(nowhere):
    world, _ = nowhere
    with world.channel() as channel:
        ready = grpc.channel_ready_future(channel)
        with pytest.raises(grpc.FutureTimeoutError):
            ready.result(timeout=0.2)
        assert ready.cancel()
        with pytest.raises(grpc.FutureCancelledError):
            ready.result(timeout=1)


def test_a_channel_that_reaches_nobody_is_in_transient_failure_until_somebody_is_there(nowhere):
    world, port = nowhere
    heard: list[grpc.ChannelConnectivity] = []
    with world.channel(options=OPTIONS) as channel:
        channel.subscribe(heard.append, try_to_connect=True)
        wait_until(lambda: STATE.TRANSIENT_FAILURE in heard, "failure")
        assert STATE.READY not in heard
        with ContractServer("--port", str(port)) as server:
            server.ready()
            wait_until(lambda: heard[-1] is STATE.READY, "ready", 20)
