"""``serve`` and ``Lifecycle`` for asyncio servers."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self, Unpack

import grpc.aio

from etcd_grpc.etcd.beside import in_thread
from etcd_grpc.model import Instance
from etcd_grpc.posting import post
from etcd_grpc.server.binding import (
    HEALTH,
    add_diagnostics,
    bind,
    note_services,
    secured,
    server_options,
)
from etcd_grpc.server.core import LifeCore
from etcd_grpc.server.health import AsyncHealthServicer, add_health
from etcd_grpc.server.heartbeat import Heartbeat
from etcd_grpc.server.inflight import AsyncInFlightInterceptor, InFlight
from etcd_grpc.server.lifecycle import LEAVING, Event, State
from etcd_grpc.server.options import (
    LifeOptions,
    LifeSettings,
    ServeOptions,
    ServeSettings,
    described_by,
    serve_options,
)
from etcd_grpc.server.orca import AsyncLoadInterceptor, process_reporter
from etcd_grpc.server.signals import StopSignals, result_beside
from etcd_grpc.server.threads import HandlerThreads
from etcd_grpc.server.tls import ServerTls
from etcd_grpc.server.workers.job import Job
from etcd_grpc.server.workers.supervise import supervise_beside
from etcd_grpc.telemetry import emit, events

__all__ = ["Lifecycle", "run", "serve"]


class Lifecycle:
    """The life of an asyncio server that you have built: ``etcd_grpc.Lifecycle`` for ``async with``.

    An event loop that lags beyond ``max_lag_s`` turns the instance NOT_SERVING, in health and in etcd,
    until it has recovered.  Telling so and leaving in order happens on a thread of its own, so that a
    blocked event loop hinders neither.

    Args:
        server: As for ``etcd_grpc.Lifecycle``.
        port: As there.
        host: As there.
        address: As there.
        in_flight: What its ``AsyncInFlightInterceptor`` counts.
        settings: See ``etcd_grpc.server.options.LifeOptions``.

    Raises:
        ConfigurationError: An argument is wrong; nothing was written.
    """

    def __init__(
        self,
        server: grpc.aio.Server,
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
        self._heartbeat: Heartbeat | None = None

    @classmethod
    def of(cls, server: grpc.aio.Server, core: LifeCore) -> Self:
        """A life cycle made of parts that have been checked already."""
        life = cls.__new__(cls)
        life._host, life._core, life._heartbeat = _Host(server), core, None
        return life

    @property
    def state(self) -> State:
        """As ``etcd_grpc.Lifecycle.state``."""
        return self._core.state

    @property
    def instances(self) -> tuple[Instance, ...]:
        """As ``etcd_grpc.Lifecycle.instances``."""
        return self._core.instances

    @property
    def registered(self) -> bool:
        """As ``etcd_grpc.Lifecycle.registered``."""
        return self._core.registered

    @property
    def lag_s(self) -> float:
        """How late the event loop was when it was last looked at, in seconds; 0 if nobody looks."""
        return 0.0 if self._heartbeat is None else self._heartbeat.lag_s

    @property
    def health(self) -> AsyncHealthServicer:
        """As ``etcd_grpc.Lifecycle.health``."""
        if self._host.health is None:
            self.make_health(())
        assert self._host.health is not None
        return self._host.health

    def make_health(self, more_services: tuple[str, ...]) -> AsyncHealthServicer:
        """As ``health``, which also knows ``more_services``."""
        names = dict.fromkeys((*self._core.options.services, *more_services))
        self._host.health = AsyncHealthServicer(tuple(names), self._core.health_metadata())
        return self._host.health

    async def start(self) -> Self:
        """As ``etcd_grpc.Lifecycle.start``."""
        self._host.loop = asyncio.get_running_loop()
        conductor = self._core.open(self._host)
        try:
            await self._on_control(conductor.begin())
        except BaseException:
            if conductor.state is not State.STOPPED:  # cancelled
                self.drain_soon()
                self.hurry()
                await self.wait()
            await in_thread(self._core.close)
            raise
        self._watch_loop()
        return self

    def serving(self) -> None:
        """As ``etcd_grpc.Lifecycle.serving``."""
        self._core.post(Event.RESUME)

    def not_serving(self) -> None:
        """As ``etcd_grpc.Lifecycle.not_serving``."""
        self._core.post(Event.PAUSE)

    async def drain(self) -> None:
        """As ``etcd_grpc.Lifecycle.drain``."""
        self.drain_soon()
        await self.wait()

    def drain_soon(self) -> None:
        """Begin to drain, and return at once; safe in a signal handler and in any thread."""
        self._core.post(Event.STOP)

    def hurry(self) -> None:
        """As ``etcd_grpc.Lifecycle.hurry``."""
        self._core.post(Event.HURRY)

    async def wait(self) -> None:
        """Wait until somebody has asked to drain and that is done."""
        if self._core.conductor is not None and self._core.running:
            await self._on_control(self._core.conductor.ended())

    async def close(self) -> None:
        """As ``etcd_grpc.Lifecycle.close``."""
        if self._core.running:
            try:
                await self.drain()
            finally:
                await in_thread(self._core.close)

    async def _on_control(self, work: Coroutine[Any, Any, None]) -> None:
        await result_beside(self._core.submit(work))

    def _watch_loop(self) -> None:
        max_lag_s, control = self._core.options.max_lag_s, self._core.control
        if max_lag_s is not None and control is not None and self._host.loop is not None:
            loop = control.session.loop
            self._heartbeat = Heartbeat(
                loop, self._host.loop, max_lag_s, self._lag_changed, lambda: self.state in LEAVING
            )
            loop.call_soon_threadsafe(self._heartbeat.start)

    def _lag_changed(self, event: Event, lag_s: float) -> None:
        """On the control loop."""
        address = self.instances[0].address
        if event is Event.LAGGED:
            emit(events.LoopLagging(address, lag_s))
        else:
            emit(events.LoopRecovered(address))
        self._core.post(event)

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()


class _Host:
    """An asyncio server, as the conductor sees it: everything is posted to its loop."""

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server
        self.health: AsyncHealthServicer | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[None]] = set()  # so that none is collected before its end

    def set_health(self, *, on: bool) -> None:
        self._post(self._set_health, on)

    async def stop(self, grace_s: float) -> None:
        stopped: concurrent.futures.Future[None] = concurrent.futures.Future()
        if self._post(self._spawn_stop, grace_s, stopped):
            await asyncio.wrap_future(stopped)

    def _post(self, callback: Callable[..., object], *arguments: Any) -> bool:
        """Run ``callback`` on the server's loop; False: that is closed, and the server with it."""
        assert self.loop is not None
        return post(self.loop, callback, *arguments)

    # On the server's loop.

    def _set_health(self, on: bool) -> None:
        if self.health is not None:
            self._spawn(self.health.serve(on=on))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _spawn_stop(self, grace_s: float, stopped: concurrent.futures.Future[None]) -> None:
        def end(task: asyncio.Task[None]) -> None:
            if not stopped.done():
                error = None if task.cancelled() else task.exception()
                stopped.set_result(None) if error is None else stopped.set_exception(error)

        self._spawn(self._stop(grace_s)).add_done_callback(end)

    async def _stop(self, grace_s: float) -> None:
        if self.health is not None:
            self.health.end_watches()
        await self._server.stop(grace_s)


@described_by(LifeOptions, ServeOptions)
async def serve(
    add_servicers: Callable[[grpc.aio.Server], object],
    *,
    on_ready: Callable[[Lifecycle], object] | None = None,
    **settings: Unpack[ServeSettings],
) -> None:
    """As ``etcd_grpc.serve``, on the running event loop.

    Args:
        add_servicers: Adds your servicers to the server that it is given; may be a coroutine function.
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
        await supervise_beside(Job(add_servicers, options, asyncio=True, on_ready=on_ready))
    else:
        await run(add_servicers, options, on_ready)


async def run(
    add_servicers: Callable[[grpc.aio.Server], object],
    options: ServeOptions,
    on_ready: Callable[[Lifecycle], object] | None = None,
) -> None:
    """``serve``, with its options checked already."""
    in_flight = InFlight()
    handlers = HandlerThreads(options.max_workers)
    server = grpc.aio.server(
        handlers.pool,
        interceptors=_interceptors(options, in_flight),
        options=server_options(options),
        maximum_concurrent_rpcs=options.maximum_concurrent_rpcs,
        compression=options.compression,
    )
    try:
        with secured(options) as credentials:
            life = await _built(server, add_servicers, options, credentials, in_flight)
            with StopSignals(life._core.post) as signals:
                async with life:
                    if options.load_reports:
                        process_reporter().lag = lambda: life.lag_s
                    if on_ready is not None and life.state not in LEAVING:
                        on_ready(life)
                    await life.wait()
    finally:
        await server.stop(0)
        handlers.close()
    if not handlers.ended():
        signals.pass_on()


def _interceptors(options: ServeOptions, in_flight: InFlight) -> list[grpc.aio.ServerInterceptor]:
    """Ours come first, so that they see the time that the others take."""
    ours: list[grpc.aio.ServerInterceptor] = [AsyncInFlightInterceptor(in_flight)]
    if options.load_reports:
        ours.append(AsyncLoadInterceptor())
    if isinstance(options.credentials, ServerTls):
        ours += options.credentials.aio_interceptors()
    return [*ours, *options.interceptors]


async def _built(
    server: grpc.aio.Server,
    add_servicers: Callable[[grpc.aio.Server], object],
    options: ServeOptions,
    credentials: grpc.ServerCredentials | None,
    in_flight: InFlight,
) -> Lifecycle:
    """The life cycle of ``server``, which has all of its services and listens."""
    names = note_services(server)
    added = add_servicers(server)
    if inspect.isawaitable(added):
        await added
    port = bind(server, options, credentials)
    life = Lifecycle.of(server, LifeCore(options.life, options.plans(port), in_flight))
    if HEALTH not in names:
        add_health(life.make_health(tuple(names)), server)
    add_diagnostics(server, options, names)
    await server.start()
    return life
