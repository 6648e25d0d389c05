"""The whole demonstration: everything it needs is started, the phases are played, all is stopped.

The rule: whatever was started is known to ``Stage`` before anything can go wrong with it, and
``Stage.close`` runs however the phases ended.  It stops in order (load, servers, etcd); a signal cuts
the order short, and then everything is killed.
"""

from __future__ import annotations

import contextlib
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import etcd_grpc
from etcd_grpc.config import EtcdConfig
from etcd_grpc.demo.load import Load, Tally
from etcd_grpc.demo.phases import MIN_STEADY_CALLS, PHASES, Phase, PhaseResult, World, judge
from etcd_grpc.demo.report import LogNotes, Reporter
from etcd_grpc.demo.servers import Fleet
from etcd_grpc.demo.source import Generation, check_generator, find_example
from etcd_grpc.demo.view import ServiceView
from etcd_grpc.demo.waiting import Interrupts
from etcd_grpc.devcluster import Cluster
from etcd_grpc.errors import EtcdGrpcError
from etcd_grpc.processes.children import Children

__all__ = ["Settings", "run_demo"]

_SERVICE = "helloworld.Greeter"
_CALL_TIMEOUT_S = 5.0
_STOP_GRACE_S = 3.0
_LOAD_STOP_S = 1.0

# What a user who wants to survive a crash writes: a call that died with its server is sent again.
_SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": [{"service": _SERVICE}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.05s",
                "maxBackoff": "0.5s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}


@dataclass(frozen=True, slots=True)
class Settings:
    """Sizes of the run.  ``steady_s`` is the least length of a steady window."""

    members: int = 3
    servers: int = 3
    ttl_s: int = 5
    rate_hz: float = 400.0
    threads: int = 4
    steady_s: float = 4.0
    max_steady_s: float = 20.0


def run_demo(settings: Settings, reporter: Reporter, interrupts: Interrupts) -> list[PhaseResult]:
    """Play all phases, or up to the first that cannot be finished; return what they counted.

    Raises:
        EtcdGrpcError: What the demonstration needs is not there or did not start.
        KeyboardInterrupt: There was a signal.  As in every case, nothing is left.
    """
    stage = Stage(settings, reporter, interrupts)
    try:
        with interrupts.raised():
            return stage.play()
    finally:
        stage.close()


class Stage:
    """All that the demonstration starts."""

    def __init__(self, settings: Settings, reporter: Reporter, interrupts: Interrupts) -> None:
        self._settings = settings
        self._reporter = reporter
        self._interrupts = interrupts
        self._logs = LogNotes(reporter.note)
        self._children: Children | None = None
        self._cluster: Cluster | None = None
        self._fleet: Fleet | None = None
        self._channel: etcd_grpc.Channel | None = None
        self._view: ServiceView | None = None
        self._load: Load | None = None

    def play(self) -> list[PhaseResult]:
        """As ``run_demo``, without the end of it."""
        self._interrupts.check()
        check_generator()
        logging.getLogger("etcd_grpc").addHandler(self._logs)
        world = self._prepare()
        self._reporter.playing(world)
        results: list[PhaseResult] = []
        for phase in PHASES:
            self._reporter.begin(phase)
            result, finished = _play(phase, world, self._settings)
            results.append(result)
            self._reporter.end(result)
            if not finished:
                break
        return results

    def close(self) -> None:
        """Stop everything, in order; at once if there is another signal."""
        self._logs.silent = True
        try:
            with self._interrupts.raised():
                self._close_in_order()
        except KeyboardInterrupt:
            pass  # a second signal means: at once
        finally:
            self._close_at_once()

    def _prepare(self) -> World:
        settings, note = self._settings, self._reporter.note
        note(f"starting {settings.members} etcd members, and protoc for the example's gRPC code")
        children = self._children = Children("demonstration")
        folder = children.directory("etcd-grpc-demo-")
        generation = Generation(find_example(), folder, children)
        cluster = self._cluster = Cluster(settings.members)
        cluster.start()
        generation.finish(self._interrupts)
        note(f"etcd: {', '.join(cluster.endpoints)}; now {settings.servers} servers")
        fleet = self._start_servers(folder, cluster, children)
        etcd = EtcdConfig(cluster.endpoints)
        view = self._view = ServiceView(_SERVICE, etcd)
        load = self._load = self._make_load(generation.modules(), etcd)
        note(f"{settings.rate_hz:g} calls a second over one channel, etcd:///{_SERVICE}")
        world = World(
            cluster=cluster,
            fleet=fleet,
            load=load,
            view=view,
            ttl_s=settings.ttl_s,
            interrupts=self._interrupts,
            note=note,
            tally=load.open(),
        )
        load.start()
        return world

    def _start_servers(self, folder: Path, cluster: Cluster, children: Children) -> Fleet:
        fleet = self._fleet = Fleet(
            folder, cluster.environment(), self._settings.ttl_s, children, self._interrupts
        )
        fleet.start(self._settings.servers)
        return fleet

    def _make_load(self, modules: tuple[ModuleType, ModuleType], etcd: EtcdConfig) -> Load:
        messages, services = modules
        channel = self._channel = etcd_grpc.insecure_channel(
            f"etcd:///{_SERVICE}", etcd=etcd, service_config=_SERVICE_CONFIG
        )
        stub: Any = services.GreeterStub(channel)
        request = messages.HelloRequest(name="etcd")

        def say_hello() -> str:
            instance: str = stub.SayHello(request, timeout=_CALL_TIMEOUT_S).instance
            return instance

        return Load(say_hello, self._settings.rate_hz, self._settings.threads)

    def _close_in_order(self) -> None:
        if self._load is not None:
            self._load.stop(_LOAD_STOP_S)
        if self._channel is not None:
            self._channel.close()
        if self._view is not None:
            self._view.close()
        if self._fleet is not None:
            with contextlib.suppress(OSError):  # the terminal may be gone
                self._reporter.note("stopping the servers, then etcd")
            self._fleet.stop_all(_STOP_GRACE_S)

    def _close_at_once(self) -> None:
        if self._load is not None:
            self._load.stop(0)
        logging.getLogger("etcd_grpc").removeHandler(self._logs)
        with contextlib.ExitStack() as last:  # the one must not keep the other from being stopped
            if self._cluster is not None:
                last.callback(self._cluster.stop)
            if self._children is not None:
                last.callback(self._children.close, 0)


def _play(phase: Phase, world: World, settings: Settings) -> tuple[PhaseResult, bool]:
    """Play one phase; also tell whether it came to its end, so that the next one can follow."""
    world.since = time.monotonic()
    steady: Tally | None = None
    problems: list[str] = []
    try:
        phase.change(world)
        steady = _steady_window(world, settings)
        if phase.aftermath is not None:
            phase.aftermath(world)
    except EtcdGrpcError as error:
        problems.append(str(error))
    finished = not problems
    seconds, tally = world.passed_s, world.tally
    world.tally = world.load.turn_over(tally)
    expected = tuple(server.address for server in world.fleet.serving)
    problems += judge(tally, steady, expected)
    result = PhaseResult(
        name=phase.name,
        calls=tally.calls,
        failed=tally.failed,
        seconds=seconds,
        by_instance=tally.by_instance,
        steady=steady.by_instance if steady else {},
        expected=expected,
        slowest_s=tally.slowest_s,
        first_error=tally.first_error,
        problems=tuple(problems),
    )
    return result, finished


def _steady_window(world: World, settings: Settings) -> Tally:
    """The calls of a while in which nothing is changed: long enough, and enough of them."""
    tally = world.load.open()
    began = time.monotonic()

    def over() -> bool:
        passed = time.monotonic() - began
        enough = passed >= settings.steady_s and tally.calls >= MIN_STEADY_CALLS
        return enough or passed >= settings.max_steady_s

    world.wait(over, 2 * settings.max_steady_s, "the end of the steady window")
    world.load.close(tally)
    return tally
