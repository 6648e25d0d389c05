"""The synchronous balanced channel against real servers and a real etcd."""

from __future__ import annotations

import collections
import gc
import json
import subprocess
import sys
import threading
import time

import grpc
import pytest
from tests.support.calls import RETRY, free_port, who
from tests.support.processes import EchoServer
from tests.support.scripted import ScriptedServer, connected, script
from tests.support.threads import no_thread_begins
from tests.support.waiting import wait_until

import etcd_grpc


@pytest.fixture
def channel(etcd, service, echoes, announce):
    """A channel over the three echo servers, all of them connected."""
    for echo in echoes:
        announce(echo.address)
    with etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel:
        call = channel.unary_unary("/echo/UnaryUnary")
        wait_until(lambda: len({call(b"x", timeout=20) for _ in range(6)}) == 3, "all connected")
        yield channel


def test_unary_calls_are_spread_evenly_to_the_call(channel, echoes):
    call = channel.unary_unary("/echo/UnaryUnary")
    counts = collections.Counter(who(call(b"x", timeout=20)) for _ in range(300))
    assert counts == {echo.address: 100 for echo in echoes}


def test_with_call_gives_metadata_both_ways(channel):
    reply, call = channel.unary_unary("/echo/UnaryUnary").with_call(
        b"x", timeout=20, metadata=(("asked", "yes"),)
    )
    assert reply.endswith(b" x")
    assert call.code() is grpc.StatusCode.OK
    assert ("initial", "one") in call.initial_metadata()
    assert ("trailing", "two") in call.trailing_metadata()


def test_futures_answer_and_call_back(channel):
    done = threading.Event()
    futures = [channel.unary_unary("/echo/UnaryUnary").future(b"x", timeout=20) for _ in range(30)]
    futures[0].add_done_callback(lambda _: done.set())
    assert len({who(f.result(timeout=20)) for f in futures}) == 3
    assert all(f.done() and not f.running() and f.code() is grpc.StatusCode.OK for f in futures)
    assert ("initial", "one") in futures[0].initial_metadata()
    assert done.wait(20)


def test_streams_work_in_all_shapes(channel):
    replies = list(channel.unary_stream("/echo/UnaryStream")(b"x", timeout=20))
    assert [r.split()[1] for r in replies] == [b"x"] * 3
    assert channel.stream_unary("/echo/StreamUnary")(iter([b"a", b"b"]), timeout=20).endswith(b"a,b")
    reply, call = channel.stream_unary("/echo/StreamUnary").with_call(iter([b"a"]), timeout=20)
    assert (reply.split()[1], call.code()) == (b"a", grpc.StatusCode.OK)
    assert channel.stream_unary("/echo/StreamUnary").future(iter([b"c"])).result(20).endswith(b"c")
    replies = list(channel.stream_stream("/echo/StreamStream")(iter([b"1", b"2"]), timeout=20))
    assert [r.split()[1] for r in replies] == [b"1", b"2"]


def test_streams_are_spread(channel):
    call = channel.unary_stream("/echo/UnaryStream")
    assert len({who(next(iter(call(b"x", timeout=20)))) for _ in range(3)}) == 3


def test_every_shape_waits_for_the_first_endpoint(etcd, service, echoes, announce):
    announce(echoes[0].address)
    for shape in ("UnaryUnary", "UnaryStream", "StreamUnary", "StreamStream", "future"):
        with etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel:
            match shape:
                case "UnaryUnary":
                    reply = channel.unary_unary("/echo/UnaryUnary")(b"x", timeout=20)
                case "UnaryStream":
                    reply = next(iter(channel.unary_stream("/echo/UnaryStream")(b"x", timeout=20)))
                case "StreamUnary":
                    reply = channel.stream_unary("/echo/StreamUnary")(iter([b"x"]), timeout=20)
                case "StreamStream":
                    stream = channel.stream_stream("/echo/StreamStream")(iter([b"x"]), timeout=20)
                    assert ("initial", "one") not in stream.initial_metadata()
                    reply = next(stream)
                    assert stream.code() is grpc.StatusCode.OK
                case "future":
                    reply = channel.unary_unary("/echo/UnaryUnary").future(b"x", timeout=20).result()
            assert who(reply) == echoes[0].address


def test_an_error_of_the_server_arrives_as_it_was_sent(channel):
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/echo/Abort")(b"FAILED_PRECONDITION not now", timeout=20)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert caught.value.details() == "not now"


def test_a_server_that_quotes_a_connection_failure_is_not_called_again(channel):
    """A server's own UNAVAILABLE may repeat the words of a client that failed further down."""
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/echo/Abort")(
            b"UNAVAILABLE failed to connect to all addresses; last error: x", timeout=20
        )
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_deadline_is_kept(channel):
    started = time.monotonic()
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/echo/Slow")(b"30", timeout=0.2)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert time.monotonic() - started < 20


def test_cancelling_a_future_cancels_the_call(channel):
    future = channel.unary_unary("/echo/Slow").future(b"30", timeout=60)
    assert future.cancel()
    assert future.cancelled()
    with pytest.raises(grpc.FutureCancelledError):
        future.result()


def test_without_instances_the_error_names_the_service_and_etcds_state(etcd, service):
    with etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/echo/UnaryUnary")(b"x", timeout=20)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert service in caught.value.details()
    assert f"etcd at {etcd} is connected, revision" in caught.value.details()
    assert caught.value.trailing_metadata() == ()


def test_without_etcd_the_error_comes_at_the_deadline_and_names_the_members(service):
    dead = f"127.0.0.1:{free_port()}"
    with etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=dead) as channel:
        channel.subscribe(lambda _: None, try_to_connect=True)
        wait_until(lambda: channel._dispatcher._running.blames_etcd, "etcd refuses connections")
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/echo/UnaryUnary")(b"x", timeout=0.5)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert dead in caught.value.details()
    assert "refused" in caught.value.details()


def test_wait_for_ready_waits_for_the_first_instance(etcd, service, echoes, announce):
    with etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel:
        future = channel.unary_unary("/echo/UnaryUnary").future(b"x", timeout=30, wait_for_ready=True)
        late = channel.unary_unary("/echo/UnaryUnary").future(b"x", timeout=0.3, wait_for_ready=True)
        with pytest.raises(grpc.RpcError) as caught:
            late.result()
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert service in caught.value.details()
        announce(echoes[0].address)
        assert who(future.result()) == echoes[0].address


def test_endpoints_that_refuse_connections_are_skipped(etcd, service, echoes, announce):
    for _ in range(3):
        announce(f"127.0.0.1:{free_port()}")
    announce(echoes[0].address)
    with etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel:
        call = channel.unary_unary("/echo/UnaryUnary")
        assert {who(call(b"x", timeout=20)) for _ in range(50)} == {echoes[0].address}


def test_when_all_refuse_the_error_lists_them(etcd, service, announce):
    address = f"127.0.0.1:{free_port()}"
    announce(address)
    with etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/echo/UnaryUnary")(b"x", timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert (
        f"the only instance of service {service} is not connected ({address})" in caught.value.details()
    )


class Load:
    """Calls in a row from a few threads; keeps what failed and who answered."""

    def __init__(self, channel: grpc.Channel, threads: int = 4) -> None:
        self._call = channel.unary_unary("/echo/UnaryUnary")
        self._stop = threading.Event()
        self.failed: list[grpc.RpcError] = []
        self.last_failure = 0.0
        self.answered: collections.Counter[str] = collections.Counter()
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.answered[who(self._call(b"x", timeout=10))] += 1
            except grpc.RpcError as error:
                self.failed.append(error)
                self.last_failure = time.monotonic()

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc):
        self._stop.set()
        for thread in self._threads:
            thread.join()


def test_no_call_fails_when_instances_join_and_leave_gracefully(etcd, service):
    """Without any retry policy."""
    with (
        EchoServer(register=service, etcd=etcd) as first,
        etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel,
        Load(channel) as load,
    ):
        wait_until(lambda: load.answered[first.address] > 50, "the first answers")
        for _ in range(2):
            with EchoServer(register=service, etcd=etcd) as other:
                wait_until(lambda: load.answered[other.address] > 50, "the other answers")
                assert other.terminate() == 0
            before = load.answered[first.address]
            wait_until(lambda: load.answered[first.address] > before + 50, "goes on")  # noqa: B023
    assert load.failed == []


def test_with_a_retry_policy_no_call_fails_when_an_instance_is_killed(etcd, service):
    with (
        EchoServer(register=service, etcd=etcd) as first,
        EchoServer(register=service, etcd=etcd, ttl_s=2) as second,
        etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd, service_config=RETRY) as channel,
        Load(channel) as load,
    ):
        wait_until(lambda: min(load.answered[s.address] for s in (first, second)) > 50, "both answer")
        second.kill()
        before = load.answered[first.address]
        wait_until(lambda: load.answered[first.address] > before + 200, "goes on")
    assert load.failed == []


def test_without_a_retry_policy_only_calls_in_flight_die_with_their_instance(etcd, service):
    with (
        EchoServer(register=service, etcd=etcd) as first,
        EchoServer(register=service, etcd=etcd, ttl_s=2) as second,
        etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel,
        Load(channel) as load,
    ):
        wait_until(lambda: min(load.answered[s.address] for s in (first, second)) > 50, "both answer")
        second.kill()
        killed = time.monotonic()
        before = load.answered[first.address]
        wait_until(lambda: load.answered[first.address] > before + 200, "goes on")
    assert len(load.failed) <= 8  # the one under way in each thread, and one on a connection just dead
    assert load.last_failure - killed < 5  # no call hung until its deadline
    assert {error.code() for error in load.failed} <= {grpc.StatusCode.UNAVAILABLE}


def test_a_future_that_dies_with_its_instance_is_sent_again(etcd, service, announce):
    with (
        ScriptedServer() as first,
        ScriptedServer() as second,
        etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd, service_config=RETRY) as channel,
    ):
        announce(first.address)
        name, request = script({first.address: {"sleep_s": 60}})
        future = channel.unary_unary("/script/Unary").future(request, timeout=60)
        wait_until(lambda: "waits" in first.saw(name), "under way")
        announce(second.address)
        wait_until(connected(channel, 2), "the second is connected")
        first.kill()
        assert who(future.result(timeout=60)) == second.address


def test_a_killed_instance_that_comes_back_on_its_port_is_used_again_at_once(etcd, service):
    with etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd, service_config=RETRY) as channel:
        call = channel.unary_unary("/echo/UnaryUnary")
        with EchoServer(register=service, etcd=etcd, port=free_port()) as first:
            assert who(call(b"x", timeout=20)) == first.address
            first.kill()
        with EchoServer(register=service, etcd=etcd, port=first.port) as again:
            assert again.address == first.address
            assert who(call(b"x", timeout=5, wait_for_ready=True)) == first.address


def test_garbage_under_the_prefix_is_skipped_and_logged_once(
    etcd, service, echoes, announce, raw, caplog
):
    announce(echoes[0].address)
    for number, value in enumerate(
        [b"{", b"\xff\xfe", b"[]", b'{"Addr":"1.2.3.4:70000"}', b"\x1b[31m" * 10, b"x" * 1_000_000]
    ):
        raw.put(f"{service}/bad{number}", value)
    with etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel:
        call = channel.unary_unary("/echo/UnaryUnary")
        assert {who(call(b"x", timeout=20)) for _ in range(10)} == {echoes[0].address}
    complaints = [r for r in caplog.records if "skipped an entry" in r.message]
    assert len(complaints) == 6
    assert all(r.message.isprintable() for r in complaints)


def test_a_draining_or_weightless_instance_gets_no_call(etcd, service, echoes, announce, raw):
    announce(echoes[0].address)
    raw.put(
        f"{service}/{echoes[1].address}",
        f'{{"Op":0,"Addr":"{echoes[1].address}","Metadata":{{"status":"draining"}}}}',
    )
    raw.put(
        f"{service}/{echoes[2].address}",
        f'{{"Op":0,"Addr":"{echoes[2].address}","Metadata":{{"weight":0}}}}',
    )
    with etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel:
        call = channel.unary_unary("/echo/UnaryUnary")
        assert {who(call(b"x", timeout=20)) for _ in range(20)} == {echoes[0].address}


def test_a_call_in_flight_survives_the_removal_of_its_instance(channel, echoes, raw, service):
    future = channel.unary_unary("/echo/Slow").future(b"2.5", timeout=20)
    for echo in echoes:
        raw.delete(f"{service}/{echo.address}")
    assert future.result().endswith(b"slow")


def test_interceptors_of_grpc_work_on_it(channel):
    class Count(grpc.UnaryUnaryClientInterceptor):
        calls = 0

        def intercept_unary_unary(self, continuation, client_call_details, request):
            Count.calls += 1
            return continuation(client_call_details, request)

    intercepted = grpc.intercept_channel(channel, Count())
    assert intercepted.unary_unary("/echo/UnaryUnary")(b"x", timeout=20).endswith(b" x")
    assert intercepted.unary_unary("/echo/UnaryUnary").future(b"x", timeout=20).result().endswith(b" x")
    assert Count.calls == 2


def test_an_interceptor_sees_the_error_of_an_empty_service(etcd, service):
    class Pass(grpc.UnaryUnaryClientInterceptor):
        def intercept_unary_unary(self, continuation, client_call_details, request):
            return continuation(client_call_details, request)

    with etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel:
        intercepted = grpc.intercept_channel(channel, Pass())
        with pytest.raises(grpc.RpcError) as caught:
            intercepted.unary_unary("/echo/UnaryUnary")(b"x", timeout=20)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_connectivity_is_reported_and_channel_ready_future_works(etcd, service, echoes, announce):
    announce(echoes[0].address)
    with etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel:
        states: list[grpc.ChannelConnectivity] = []
        channel.subscribe(states.append)
        wait_until(lambda: states == [grpc.ChannelConnectivity.IDLE], "the first state")
        grpc.channel_ready_future(channel).result(timeout=10)
        wait_until(lambda: states[-1] is grpc.ChannelConnectivity.READY, "ready")
        channel.unsubscribe(states.append)


def test_a_channel_of_an_empty_service_is_in_transient_failure(etcd, service):
    with etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel:
        states: list[grpc.ChannelConnectivity] = []
        channel.subscribe(states.append, try_to_connect=True)
        wait_until(lambda: grpc.ChannelConnectivity.TRANSIENT_FAILURE in states, "failing")


def test_a_closed_channel_refuses_calls_as_a_plain_one_does(channel):
    call = channel.unary_unary("/echo/UnaryUnary")
    channel.close()
    channel.close()
    with pytest.raises(ValueError, match="closed channel"):
        call(b"x")
    with pytest.raises(ValueError, match="closed channel"):
        call.future(b"x")
    with pytest.raises(ValueError, match="closed channel"):
        channel.unary_stream("/echo/UnaryStream")(b"x")


def test_closing_ends_calls_that_wait_for_an_endpoint(etcd, service):
    channel = etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd)
    future = channel.unary_unary("/echo/UnaryUnary").future(b"x", wait_for_ready=True)
    channel.close()
    assert future.code() is grpc.StatusCode.CANCELLED


def test_an_unclosed_channel_warns_and_ends_its_threads(etcd, service, echoes, announce):
    announce(echoes[0].address)

    def use() -> None:
        channel = etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd)
        channel.unary_unary("/echo/UnaryUnary")(b"x", timeout=20)

    with pytest.warns(ResourceWarning, match=service):
        use()
        gc.collect()


def test_a_stub_keeps_its_channel_alive(etcd, service, echoes, announce):
    announce(echoes[0].address)
    call = etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd).unary_unary("/echo/UnaryUnary")
    gc.collect()
    assert who(call(b"x", timeout=20)) == echoes[0].address
    call._channel.close()


def test_the_first_calls_are_spread_too(etcd, service, echoes, announce, monkeypatch):
    # For a machine that takes longer to connect.
    monkeypatch.setattr("etcd_grpc.channel.publisher._FIRST_S", 10.0)
    for echo in echoes:
        announce(echo.address)
    with etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel:
        call = channel.unary_unary("/echo/UnaryUnary")
        counts = collections.Counter(who(call(b"x", timeout=20)) for _ in range(6))
    assert counts == {echo.address: 2 for echo in echoes}


def test_a_channel_of_a_module_is_no_noise_at_exit(etcd, service, echoes, announce):
    announce(echoes[0].address)
    code = (
        "import etcd_grpc\n"
        f"channel = etcd_grpc.insecure_channel('etcd:///{service}', etcd='{etcd}')\n"
        "print(channel.unary_unary('/echo/UnaryUnary')(b'x', timeout=20).decode())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{echoes[0].address} x\n"


FORK = """
import os, sys, time
import etcd_grpc

service, etcd, address = sys.argv[1:]
channel = etcd_grpc.insecure_channel("etcd:///" + service, etcd=etcd)
call = channel.unary_unary("/echo/UnaryUnary")
registration = etcd_grpc.register(service + ".other", port=5000, etcd=etcd)
assert call(b"x", timeout=20).split()[0].decode() == address
child = os.fork()
if not child:
    assert call(b"x", timeout=20).split()[0].decode() == address
    try:
        registration.update(weight=2)
    except etcd_grpc.ConfigurationError as error:
        assert "parent" in str(error)
    registration.close()
    channel.close()
    sys.exit(7)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 7, status
assert call(b"x", timeout=20).split()[0].decode() == address
registration.update(weight=3)
registration.close(settle_s=0)
channel.close()
print("done")
"""


def test_after_a_fork_the_child_begins_anew_and_the_lease_stays_the_parents(
    etcd, service, echoes, announce
):
    announce(echoes[0].address)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORK, service, etcd, echoes[0].address],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


def test_a_channel_that_was_never_used_starts_nothing(etcd):
    with no_thread_begins():
        channel = etcd_grpc.insecure_channel("etcd:///never.Used", etcd=etcd)
    channel.close()


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("greeter", "does not start with etcd://"),
        ("etcd://greeter", "three slashes"),
        ("etcd:///", "names no service"),
        ("etcd:///a//b", "stray slashes"),
        ("etcd:///a?zone", "query"),
    ],
)
def test_a_malformed_target_is_refused_where_it_is_given(target, problem):
    with pytest.raises(etcd_grpc.ConfigurationError, match=problem):
        etcd_grpc.insecure_channel(target)
    with pytest.raises(etcd_grpc.ConfigurationError, match=problem):
        etcd_grpc.aio.insecure_channel(target)


def test_an_unknown_policy_lists_the_known_ones():
    with pytest.raises(etcd_grpc.ConfigurationError, match=r"known are .*round_robin"):
        etcd_grpc.insecure_channel("etcd:///a", policy="fastest")


def test_the_service_config_option_is_understood(etcd, service, echoes, announce):
    announce(echoes[0].address)
    slow = {"name": [{"service": "echo", "method": "Slow"}], "timeout": "0.5s"}
    options = [("grpc.service_config", json.dumps({"methodConfig": [slow]}))]
    with etcd_grpc.insecure_channel(f"etcd:///{service}", options=options, etcd=etcd) as channel:
        assert channel.unary_unary("/echo/UnaryUnary")(b"x").endswith(b" x")
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/echo/Slow")(b"20")
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
