"""Leads a server through its life: asks the table, and carries its effects out on the control loop.

The control loop does it for both worlds, so that an application whose own loop is blocked, or whose
threads are busy, can still tell its clients and leave etcd in order.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

from etcd_grpc.intent import Intent
from etcd_grpc.model import Instance, Status
from etcd_grpc.plane import ControlPlane
from etcd_grpc.posting import post
from etcd_grpc.registry import Registrar
from etcd_grpc.server.inflight import InFlight
from etcd_grpc.server.lifecycle import LEAVING, Effect, Event, State, transition
from etcd_grpc.server.options import LifeOptions
from etcd_grpc.telemetry import emit, events
from etcd_grpc.wakeup import Wakeup

__all__ = ["Conductor", "Host"]

_log = logging.getLogger("etcd_grpc.server")

# How long etcd gets to tell clients that we leave before we go on without it.
_ANNOUNCE_S = 1.0
# How long the one attempt to withdraw may take when nobody has patience, or etcd did not answer before.
_HURRY_S = 0.5
_IDLE_POLL_S = 0.02
_SETTLE_STEP_S = 0.1


class Host(Protocol):
    """The server, in whichever world it lives."""

    def set_health(self, *, on: bool) -> None:
        """Answer health checks with SERVING or NOT_SERVING from now on.  Does not block."""

    async def stop(self, grace_s: float) -> None:
        """Take no more calls, finish those in flight, within ``grace_s`` seconds.

        Awaited on the control loop, also a second time with less grace.
        """


class Conductor:
    """One server's life.  Everything but ``state`` and ``post`` is for the control loop.

    Args:
        control: The plane on whose loop it happens.
        instances: What is to be registered.
        options: How to join and leave.
        host: The server.
        in_flight: What the server has in flight, if anybody counts it.
    """

    def __init__(
        self,
        control: ControlPlane,
        instances: Sequence[Instance],
        options: LifeOptions,
        host: Host,
        in_flight: InFlight | None,
    ) -> None:
        self.state = State.STARTING
        self._control = control
        self._loop = control.session.loop
        self._instances = tuple(instances)
        self._options = options
        self._host = host
        self._in_flight = in_flight
        self._changed = Wakeup()
        self._intents: list[Intent] = []
        self._registering: asyncio.Task[None] | None = None
        self._failure: BaseException | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: list[asyncio.TimerHandle] = []
        self._left_at = self._loop.time()
        self._deadline = math.inf
        self._told = True  # etcd has answered when we were about to leave
        self._withdrawal: asyncio.Timeout | None = None
        self._effects: dict[Effect, Callable[[], object]] = {
            Effect.HEALTH_ON: lambda: host.set_health(on=True),
            Effect.HEALTH_OFF: lambda: host.set_health(on=False),
            Effect.REGISTER: self._register,
            Effect.MARK_SERVING: lambda: self._spawn(self._mark(Status.SERVING)),
            Effect.MARK_NOT_SERVING: lambda: self._spawn(self._mark(Status.NOT_SERVING)),
            Effect.MARK_DRAINING: lambda: self._spawn(self._announce(), Event.ANNOUNCED),
            Effect.COUNT_GRACE: self._count_grace,
            Effect.AWAIT_SETTLED: lambda: self._loop.call_soon(self._settle, options.settle_s),
            Effect.AWAIT_IDLE: lambda: self._loop.call_soon(self._await_idle),
            Effect.WITHDRAW: lambda: self._spawn(self._withdraw(), Event.WITHDRAWN),
            Effect.LIMIT_WITHDRAWAL: self._limit_withdrawal,
            Effect.STOP_SERVER: lambda: self._spawn(self._stop(), Event.CLOSED),
            Effect.ABORT_SERVER: lambda: self._spawn(self._stop(0), Event.CLOSED),
        }

    # From any thread.

    def post(self, event: Event) -> None:
        """Let ``event`` happen soon.  Safe in a signal handler; nothing happens after the end."""
        post(self._loop, self.handle, event)

    @property
    def registered(self) -> bool:
        """Whether every instance stands in etcd at this moment, as far as etcd has told us."""
        intents = tuple(self._intents)
        if len(intents) < len(self._instances):
            return False
        return all(map(self._registrar().stands, intents))

    # On the control loop.

    async def begin(self) -> None:
        """The server is listening: register; return when it serves, or leaves already.

        Raises:
            EtcdGrpcError: It cannot be registered; nothing stays registered.
        """
        self.handle(Event.BOUND)
        await self._until(lambda: self.state not in (State.STARTING, State.REGISTERING))
        if self._failure is not None:
            await self.ended()
            raise self._failure

    async def ended(self) -> None:
        """Wait for the end."""
        await self._until(lambda: self.state is State.STOPPED)

    def handle(self, event: Event) -> None:
        """``event`` has happened."""
        before = self.state
        self.state, effects = transition(before, event)
        for effect in effects:
            self._effects[effect]()
        if self.state is not before:
            self._tell(before)
            self._changed.tell()

    def _tell(self, before: State) -> None:
        services = tuple(instance.service for instance in self._instances)
        address = self._instances[0].address
        if before is State.REGISTERING and self.state is State.SERVING:
            emit(events.ServingStarted(services, address, self._instances[0].id))
        elif before not in LEAVING and self.state is State.ANNOUNCING:
            emit(events.DrainStarted(services, address, self._count(), self._options.grace_s))
        elif self.state is State.STOPPED:
            for timer in self._timers:
                timer.cancel()
            if self._failure is None:
                took_s = self._loop.time() - self._left_at
                emit(events.ServingEnded(services, address, took_s, self._count()))

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._changed.wait()

    def _spawn(self, work: Coroutine[Any, Any, None], then: Event | None = None) -> None:
        """Do ``work``; what comes ``then`` comes however it ends."""

        async def run() -> None:
            try:
                await work
            except Exception:  # noqa: BLE001 - whatever it is: it must go on
                _log.exception("a step of leaving or joining went wrong, by a defect of this package")
            if then is not None:
                self.handle(then)

        task = self._loop.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _after(self, delay_s: float, callback: Callable[..., None], *arguments: Any) -> None:
        """Call it then, unless all has ended."""
        self._timers[:] = [timer for timer in self._timers if timer.when() > self._loop.time()]
        self._timers.append(self._loop.call_later(delay_s, callback, *arguments))

    def _registrar(self) -> Registrar:
        return self._control.registrar(self._options.ttl_s)

    def _count(self) -> int:
        return 0 if self._in_flight is None else self._in_flight.count

    # Joining.

    def _register(self) -> None:
        self._registering = self._loop.create_task(self._register_all())

    async def _register_all(self) -> None:
        results = await asyncio.gather(*map(self._add, self._instances), return_exceptions=True)
        failures = [result for result in results if isinstance(result, BaseException)]
        if failures:
            self._failure = failures[0]
            self.handle(Event.REGISTER_FAILED)
        else:
            self.handle(Event.REGISTERED)

    async def _add(self, instance: Instance) -> None:
        options = self._options
        self._intents.append(
            await self._registrar().add(instance, options.timeout_s, required=options.required)
        )

    async def _cease_registering(self) -> None:
        """Leave nothing behind of a registration that is under way."""
        task = self._registering
        if task is not None and not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=_HURRY_S)

    # How it is.

    async def _mark(self, status: Status) -> None:
        registrar, timeout_s = self._registrar(), self._options.timeout_s
        await asyncio.gather(*(registrar.mark(i, status, timeout_s) for i in self._intents))

    # Leaving.

    def _count_grace(self) -> None:
        self._left_at = self._loop.time()
        self._deadline = self._left_at + self._options.grace_s
        self._after(self._options.grace_s, self.handle, Event.GRACE_OVER)

    async def _announce(self) -> None:
        await self._cease_registering()
        registrar = self._registrar()
        marks = (registrar.mark(i, Status.DRAINING, _ANNOUNCE_S) for i in tuple(self._intents))
        self._told = all(await asyncio.gather(*marks))

    def _settle(self, left_s: float) -> None:
        """Give clients the time to move.

        A process that stands still (its share of the processor is used up, its machine is paused) does
        not see what arrives.  So that time does not count, and what came is begun before it goes on.
        """
        if left_s <= 0:
            self.handle(Event.SETTLED)
        else:
            step_s = min(left_s, _SETTLE_STEP_S)
            self._after(step_s, self._settle, left_s - step_s)

    def _await_idle(self) -> None:
        if self.state is not State.FINISHING:
            return
        if self._count() == 0:
            self.handle(Event.IDLE)
        else:
            self._after(_IDLE_POLL_S, self._await_idle)

    async def _withdraw(self) -> None:
        await self._cease_registering()
        limit_s = _HURRY_S
        if self.state is State.WITHDRAWING and self._told:
            limit_s = max(limit_s, min(self._options.timeout_s, self._deadline - self._loop.time()))
        registrar = self._registrar()
        try:
            async with asyncio.timeout(limit_s) as self._withdrawal:
                await asyncio.gather(*(registrar.remove(i, limit_s) for i in tuple(self._intents)))
        except TimeoutError:
            _log.info("the keys are left to their lease (TTL %d s)", self._options.ttl_s)

    def _limit_withdrawal(self) -> None:
        limit, soon = self._withdrawal, self._loop.time() + _HURRY_S
        if limit is not None and (limit.when() or math.inf) > soon and not limit.expired():
            limit.reschedule(soon)

    async def _stop(self, grace_s: float | None = None) -> None:
        left_s = self._deadline - self._loop.time() if grace_s is None else grace_s
        await self._host.stop(max(0.0, left_s))
