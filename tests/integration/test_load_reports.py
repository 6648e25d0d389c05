"""Answers carry load reports, whatever the handler does, and gRPC's own policy weighs by them."""

from __future__ import annotations

import collections
import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.support.waiting import wait_until

from etcd_grpc.load_report import OrcaLoadReport, decode_text
from etcd_grpc.testing import Process

SERVER = Path(__file__).parents[1] / "support" / "load_server.py"
WORLDS = pytest.mark.parametrize("server", ["sync", "aio"], indirect=True)
ONLY_AIO = pytest.mark.parametrize("server", ["aio"], indirect=True)


@contextlib.contextmanager
def running(*arguments: str) -> Iterator[str]:
    """A server; yields its address."""
    command = [sys.executable, SERVER, *arguments]
    with Process(command, ready=r"^ready (\S+)$", timeout_s=60) as process:
        yield process.match[1]


class Server:
    """Calls of a server, and what came with their answers."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel

    def call(self, name: str, request: bytes = b"x") -> Any:
        """The call, ended."""
        unary: Any = self._channel.unary_unary(name if name[0] == "/" else f"/load/{name}")
        call = unary.future(request, timeout=20)
        call.exception()
        return call

    def stream(self, name: str) -> tuple[list[bytes], Any]:
        """All answers, and the call."""
        call: Any = self._channel.unary_stream(f"/load/{name}")(b"x", timeout=20)
        answers = []
        with contextlib.suppress(grpc.RpcError):
            answers += call
        return answers, call

    def report(self) -> OrcaLoadReport:
        """The present report."""
        return wait_until(lambda: reported(self.call("plain")), "a report")


def reported(call: Any) -> OrcaLoadReport | None:
    """The report that came with an answer, in its one header."""
    texts = [value for name, value in call.trailing_metadata() if name == "endpoint-load-metrics"]
    assert len(texts) <= 1
    return decode_text(texts[0]) if texts else None


def mine(call: Any) -> list[tuple[str, Any]]:
    """What the handler has set."""
    return [(name, value) for name, value in call.trailing_metadata() if name.startswith("mine")]


@pytest.fixture(scope="module")
def servers() -> Iterator[Callable[[str], Server]]:
    with contextlib.ExitStack() as stack:
        found: dict[str, Server] = {}

        def get(world: str) -> Server:
            if world not in found:
                address = stack.enter_context(running(world))
                found[world] = Server(stack.enter_context(grpc.insecure_channel(address)))
            return found[world]

        yield get


@pytest.fixture
def server(servers, request) -> Server:
    found: Server = servers(request.param)
    found.report()  # from now on there is one
    return found


@WORLDS
def test_an_answer_carries_the_report(server: Server) -> None:
    report = server.report()
    assert report.rps_fractional > 0
    assert report.cpu_utilization > 0
    assert report.eps == 0
    assert report.named_metrics["in_flight"] >= 0


@WORLDS
def test_what_the_application_sets_arrives_beside_it(server: Server) -> None:
    call = server.call("sets")
    assert mine(call) == [("mine", "1"), ("mine-bin", b"\x00\xff")]
    assert reported(call)


@WORLDS
def test_a_report_of_the_application_wins(server: Server) -> None:
    assert reported(server.call("reports")) == OrcaLoadReport(eps=77)


@WORLDS
def test_an_abort_carries_the_report(server: Server) -> None:
    call = server.call("aborts", b"NOT_FOUND")
    assert (call.code(), call.details()) == (grpc.StatusCode.NOT_FOUND, "no")
    assert reported(call)


@WORLDS
def test_an_exception_carries_the_report(server: Server) -> None:
    call = server.call("raises")
    assert call.code() is grpc.StatusCode.UNKNOWN
    assert "broken" in call.details()
    assert reported(call)


def test_what_is_set_before_an_abort_arrives(servers) -> None:
    for world in ("sync", "aio"):
        server = servers(world)
        server.report()
        call = server.call("sets_and_aborts", b"NOT_FOUND")
        assert mine(call) == [("mine", "1")]
        # grpc.aio sends the metadata within abort(), before anything can be added: documented.
        assert bool(reported(call)) == (world == "sync")


@WORLDS
def test_a_stream_ends_with_the_report(server: Server) -> None:
    answers, call = server.stream("streams")
    assert answers == [b"x", b"x"]
    assert mine(call) == [("mine", "1")]
    assert reported(call)


@WORLDS
def test_a_stream_that_breaks_ends_with_the_report(server: Server) -> None:
    answers, call = server.stream("stream_raises")
    assert answers == [b"x"]
    assert call.code() is grpc.StatusCode.UNKNOWN
    assert reported(call)


@ONLY_AIO
def test_every_kind_of_handler_of_an_asyncio_server_reports(server: Server) -> None:
    for name in ("writes", "plain_generator"):
        answers, call = server.stream(name)
        assert answers == [b"x", b"x"], name
        assert reported(call), name
    call = server.call("plain_function")
    assert call.result() == b"x"
    assert reported(call)


@WORLDS
def test_health_checks_are_no_load(server: Server) -> None:
    call = server.call("/grpc.health.v1.Health/Check")
    assert call.code() is grpc.StatusCode.OK
    assert reported(call) is None
    assert call.result().startswith(b"0 ")  # calls in flight, without itself


@WORLDS
def test_an_unknown_method_is_left_alone(server: Server) -> None:
    call = server.call("/nobody/Knows")
    assert call.code() is grpc.StatusCode.UNIMPLEMENTED
    assert reported(call) is None


@WORLDS
@pytest.mark.parametrize(
    ("method", "request_", "fault"),
    [
        ("aborts", b"NOT_FOUND", False),
        ("aborts", b"INTERNAL", True),
        ("sets_code", b"ALREADY_EXISTS", False),
        ("sets_code", b"UNAVAILABLE", True),
        ("raises", b"", True),
    ],
)
def test_errors_a_second_are_those_that_are_the_servers_fault(
    server: Server, method: str, request_: bytes, fault: bool
) -> None:
    before = server.report()  # made before the latest failures, perhaps

    def forgotten() -> bool:
        report = server.report()
        return report != before and report.eps == 0

    wait_until(forgotten, "earlier failures have left the window")

    def calls() -> bool:
        server.call(method, request_)
        return server.report().eps > 0

    if fault:
        wait_until(calls, "failures are reported")
    else:
        assert not any(calls() for _ in range(100))


@WORLDS
def test_in_flight_comes_back_to_nothing(server: Server) -> None:
    for name in ("raises", "stream_raises", "aborts"):
        server.call(name, b"INTERNAL")
    wait_until(
        lambda: server.call("plain").result().startswith(b"1 "), "only the call itself is in flight"
    )


def test_grpcs_own_policy_weighs_by_the_reports() -> None:
    """Two servers whose capacities are as 4 to 1, one in each world; C-core's weighted_round_robin."""
    config = {
        "loadBalancingConfig": [
            {"weighted_round_robin": {"blackoutPeriod": "0.1s", "weightUpdatePeriod": "0.1s"}}
        ]
    }
    with (
        running("sync", "--capacity", "4000") as large,
        running("aio", "--capacity", "1000") as small,
        grpc.insecure_channel(
            f"ipv4:{large},{small}", [("grpc.service_config", json.dumps(config))]
        ) as channel,
    ):
        call: Any = channel.unary_unary("/load/plain")

        def shares() -> float:
            """The quotient of the calls that each gets, over 500."""
            peers: collections.Counter[str] = collections.Counter()
            for _ in range(500):
                answer = call(b"", timeout=20, wait_for_ready=True)
                peers[answer.split()[1].decode()] += 1
            return peers[large] / max(1, peers[small])

        wait_until(lambda: 3.5 < shares() < 4.5, "shares are as the capacities", 60)
