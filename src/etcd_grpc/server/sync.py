"""``serve`` and ``Lifecycle`` for synchronous servers."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self, Unpack

import grpc

from etcd_grpc.etcd.beside import in_thread
from etcd_grpc.model import Instance
from etcd_grpc.server.binding import (
    HEALTH,
    add_diagnostics,
    bind,
    note_services,
    secured,
    server_options,
)
from etcd_grpc.server.core import LifeCore
from etcd_grpc.server.health import HealthServicer, add_health
from etcd_grpc.server.inflight import InFlight, InFlightInterceptor
from etcd_grpc.server.lifecycle import LEAVING, Event, State
from etcd_grpc.server.options import (
    LifeOptions,
    LifeSettings,
    ServeOptions,
    ServeSettings,
    described_by,
    serve_options,
)
from etcd_grpc.server.orca import LoadInterceptor
from etcd_grpc.server.signals import StopSignals, result
from etcd_grpc.server.threads import HandlerThreads
from etcd_grpc.server.tls import ServerTls
from etcd_grpc.server.workers.job import Job
from etcd_grpc.server.workers.supervise import supervise

__all__ = ["Lifecycle", "run", "serve"]


class Lifecycle:
    """The life of a server that you have built: registered on entry, drained and stopped on exit.

    A context manager, to be entered when the server listens and was started.  It handles no signals.

    Args:
        server: Bound and, on entry, started.
        port: The port on which it listens.
        host: The host that clients shall use, as for ``register``.
        address: ``host:port``, in place of the two.
        in_flight: What its ``InFlightInterceptor`` counts.  Without it the server's own graceful stop
            finishes what is in flight, after the keys are gone from etcd rather than before.
        settings: See ``etcd_grpc.server.options.LifeOptions``.

    Raises:
        ConfigurationError: An argument is wrong; nothing was written.
    """

    def __init__(
        self,
        server: grpc.Server,
        *,
        port: int | None = None,
        host: str | None = None,
        address: str | None = None,
        in_flight: InFlight | None = None,
        **settings: Unpack[LifeSettings],
    ) -> None:
        options = LifeOptions(**settings)
        plans = options.plans(port=port, host=host, address=address, identified=True)
        self._host = _Host(server)
        self._core = LifeCore(options, plans, in_flight)

    @classmethod
    def of(cls, server: grpc.Server, core: LifeCore) -> Self:
        """A life cycle made of parts that have been checked already."""
        life = cls.__new__(cls)
        life._host, life._core = _Host(server), core
        return life

    @property
    def state(self) -> State:
        """Where the server stands in its life."""
        return self._core.state

    @property
    def instances(self) -> tuple[Instance, ...]:
        """What is, or is to be, registered: one for each service."""
        return self._core.instances

    @property
    def registered(self) -> bool:
        """Whether all of it stands in etcd at this moment, as far as etcd has told us."""
        return self._core.registered

    @property
    def health(self) -> HealthServicer:
        """The servicer of ``grpc.health.v1``: add it to the server before that is started.

        Its status follows this life cycle, and it tells the instance's id.
        """
        if self._host.health is None:
            self._host.health = self.make_health(())
        return self._host.health

    def make_health(self, more_services: tuple[str, ...]) -> HealthServicer:
        """As ``health``, which also knows ``more_services``."""
        names = dict.fromkeys((*self._core.options.services, *more_services))
        self._host.health = HealthServicer(tuple(names), self._core.health_metadata())
        return self._host.health

    def start(self) -> Self:
        """Register; return when clients can find the server.

        Raises:
            DuplicateInstanceError: A live process is registered under ``id``.
            EtcdError: etcd could not be reached in time, or refused.  Nothing stays registered, and the
                server goes on as it was.
        """
        conductor = self._core.open(self._host)
        try:
            result(self._core.submit(conductor.begin()))
        except BaseException:
            if conductor.state is not State.STOPPED:  # interrupted
                self.drain(wait=False)
                self.hurry()
                self.wait()
            self._core.close()
            raise
        return self

    def serving(self) -> None:
        """Take calls again, after ``not_serving``."""
        self._core.post(Event.RESUME)

    def not_serving(self) -> None:
        """Take no calls for a while: NOT_SERVING in health and in etcd.  What comes is answered."""
        self._core.post(Event.PAUSE)

    def drain(self, *, wait: bool = True) -> None:
        """Leave in order, and stop the server: see ``lifecycle`` for the order.

        Args:
            wait: False returns at once; safe in a signal handler.
        """
        self._core.post(Event.STOP)
        if wait:
            self.wait()

    def hurry(self) -> None:
        """Once it drains: skip what is left of that, but for one attempt to withdraw."""
        self._core.post(Event.HURRY)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until somebody has asked to drain and that is done; return whether it is."""
        conductor = self._core.conductor
        if conductor is None or not self._core.running:
            return conductor is not None
        try:
            result(self._core.submit(conductor.ended()), timeout_s)
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        """Drain, unless that is done.  A second call does nothing."""
        if self._core.running:
            try:
                self.drain()
            finally:
                self._core.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class _Host:
    """A synchronous server, as the conductor sees it."""

    def __init__(self, server: grpc.Server) -> None:
        self._server = server
        self.health: HealthServicer | None = None

    def set_health(self, *, on: bool) -> None:
        if self.health is not None:
            self.health.serve(on=on)

    async def stop(self, grace_s: float) -> None:
        await in_thread(lambda: self._stop(grace_s), "etcd-grpc-stop")

    def _stop(self, grace_s: float) -> None:
        if self.health is not None:
            self.health.end_watches()
        self._server.stop(grace_s).wait()


@described_by(LifeOptions, ServeOptions)
def serve(
    add_servicers: Callable[[grpc.Server], object],
    *,
    on_ready: Callable[[Lifecycle], object] | None = None,
    **settings: Unpack[ServeSettings],
) -> None:
    """Bind, answer health checks, register, run until SIGTERM or SIGINT, drain, stop, return.

    In the main thread the two signals are handled while it runs.  A second one skips the draining.
    If calls still run on threads when ``grace_s`` is over, the signal is passed on to whoever handled
    it before, which by default ends the process: they would hold up its end for as long as they please.

    Args:
        add_servicers: Adds your servicers to the server that it is given, for example
            ``lambda server: add_GreeterServicer_to_server(Greeter(), server)``.  With several workers
            a function at the top of a module.
        on_ready: Called with the ``Lifecycle`` when clients can find the server; in each worker.
        settings: See ``etcd_grpc.server.options``: ``LifeOptions`` and ``ServeOptions``.

    Raises:
        ConfigurationError: An argument is wrong, or the port cannot be had; nothing was registered.
        DuplicateInstanceError: A live process is registered under ``id``.
        EtcdError: etcd could not be reached in time, or refused; nothing stays registered.
        WorkerError: The workers ended again and again, and none is left.
    """
    options = serve_options(**settings)
    if options.workers > 1:
        supervise(Job(add_servicers, options, on_ready=on_ready))
    else:
        run(add_servicers, options, on_ready)


def run(
    add_servicers: Callable[[grpc.Server], object],
    options: ServeOptions,
    on_ready: Callable[[Lifecycle], object] | None = None,
) -> None:
    """``serve``, with its options checked already."""
    in_flight = InFlight()
    handlers = HandlerThreads(options.max_workers)
    server = grpc.server(
        handlers.pool,
        interceptors=_interceptors(options, in_flight),
        options=server_options(options),
        maximum_concurrent_rpcs=options.maximum_concurrent_rpcs,
        compression=options.compression,
    )
    try:
        with secured(options) as credentials:
            life = _built(server, add_servicers, options, credentials, in_flight)
            with StopSignals(life._core.post) as signals, life:
                if on_ready is not None and life.state not in LEAVING:
                    on_ready(life)
                life.wait()
    finally:
        server.stop(0).wait()
        handlers.close()
    if not handlers.ended():
        signals.pass_on()


def _interceptors(options: ServeOptions, in_flight: InFlight) -> list[grpc.ServerInterceptor]:
    """Ours come first, so that they see the time that the others take."""
    ours: list[grpc.ServerInterceptor] = [InFlightInterceptor(in_flight)]
    if options.load_reports:
        ours.append(LoadInterceptor())
    if isinstance(options.credentials, ServerTls):
        ours += options.credentials.interceptors()
    return [*ours, *options.interceptors]


def _built(
    server: grpc.Server,
    add_servicers: Callable[[grpc.Server], object],
    options: ServeOptions,
    credentials: grpc.ServerCredentials | None,
    in_flight: InFlight,
) -> Lifecycle:
    """The life cycle of ``server``, which has all of its services and listens."""
    names = note_services(server)
    add_servicers(server)
    port = bind(server, options, credentials)
    life = Lifecycle.of(server, LifeCore(options.life, options.plans(port), in_flight))
    if HEALTH not in names:
        add_health(life.make_health(tuple(names)), server)
    add_diagnostics(server, options, names)
    server.start()
    return life
