"""``grpc.health.v1`` for an instance: how it is, as its life cycle says, and who it is.

Built on grpcio-health-checking, whose servicers know the status of each service.  Added are the
instance's id in the initial metadata (``identity.py``), that nothing is SERVING before the life cycle
says so, and that a watch ends when the server does: one that is left open would hold up its stop.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Sequence
from typing import Any

from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from etcd_grpc.identity import INSTANCE_KEY

__all__ = ["AsyncHealthServicer", "HealthServicer", "add_health"]

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class HealthServicer(health.HealthServicer):  # type: ignore[misc]  # the library has no types
    """For a synchronous server.

    Args:
        services: The names whose status it knows, besides ``""`` for the whole server.
        instance_id: Told to whoever asks; "" tells none.
    """

    def __init__(self, services: Sequence[str], instance_id: str) -> None:
        super().__init__()
        self._names = ("", *services)
        self._metadata = _identity(instance_id)
        self._lock_watches = threading.Lock()  # guards _watches and _ended
        self._watches: set[_Watch] = set()
        self._ended = False
        self._tell = threading.Lock()  # guards _wanted and _telling
        self._wanted = False
        self._telling = False
        self._set_all(on=False)

    def serve(self, *, on: bool) -> None:
        """Answer SERVING, or NOT_SERVING, from now on.  Any thread; does not block.

        Who watches is told by a thread that lives for it alone, because a client that does not read
        would hold it up.
        """
        with self._tell:
            self._wanted = on
            begin = not self._telling
            self._telling = True
        if begin:
            threading.Thread(target=self._tell_watches, name="etcd-grpc-health", daemon=True).start()

    def end_watches(self) -> None:
        """End every watch, and those that are yet to come."""
        with self._lock_watches:
            self._ended = True
            watches = tuple(self._watches)
        for watch in watches:
            watch(None)

    def Check(self, request: Any, context: Any) -> Any:  # noqa: N802 - the method's name
        """Answer how a service is."""
        if self._metadata:
            context.send_initial_metadata(self._metadata)
        if request.service in self._names:  # at once: whoever finds us in etcd may ask who we are
            return health_pb2.HealthCheckResponse(status=_status(on=self._wanted))
        return super().Check(request, context)

    def Watch(  # noqa: N802 - the method's name
        self, request: Any, context: Any, send_response_callback: Any = None
    ) -> Any:
        """Tell how a service is, now and whenever that changes."""
        if self._metadata:
            context.send_initial_metadata(self._metadata)
        watch = _Watch(send_response_callback)
        with self._lock_watches:
            over = self._ended
            if not over:
                self._watches.add(watch)
        if over:
            watch(None)
        else:
            context.add_callback(lambda: self._forget(watch))
            super().Watch(request, context, watch)

    def _forget(self, watch: _Watch) -> None:
        with self._lock_watches:
            self._watches.discard(watch)

    def _tell_watches(self) -> None:
        told: bool | None = None
        while True:
            with self._tell:
                wanted = self._wanted
                if wanted is told:
                    self._telling = False
                    return
            self._set_all(on=wanted)
            told = wanted

    def _set_all(self, *, on: bool) -> None:
        for name in self._names:
            self.set(name, _status(on=on))


class _Watch:
    """gRPC's way to send to one watch.  It ends once: by us, or because the client has gone."""

    __slots__ = ("_over", "_send")

    def __init__(self, send: Any) -> None:
        self._send = send
        self._over = False

    def __call__(self, response: Any) -> None:
        if not self._over:
            self._over = response is None
            self._send(response)


class AsyncHealthServicer(health.aio.HealthServicer):  # type: ignore[misc]  # the library has no types
    """For an asyncio server; on its event loop.

    Args:
        services: As for ``HealthServicer``.
        instance_id: As for ``HealthServicer``.
    """

    def __init__(self, services: Sequence[str], instance_id: str) -> None:
        super().__init__()
        self._names = ("", *services)
        self._metadata = _identity(instance_id)
        self._watches: set[asyncio.Task[None]] = set()
        self._ended = False
        self._told = False  # whether the life cycle has said how we are
        self._turn = asyncio.Lock()  # so that the last one set is the last one told

    async def serve(self, *, on: bool) -> None:
        """Answer SERVING, or NOT_SERVING, from now on."""
        self._told = True
        async with self._turn:
            for name in self._names:
                await self.set(name, _status(on=on))

    def end_watches(self) -> None:
        """End every watch, and those that are yet to come."""
        self._ended = True
        for task in tuple(self._watches):
            task.cancel()

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802 - the method's name
        """Answer how a service is."""
        await self._begin(context)
        return await super().Check(request, context)

    async def Watch(self, request: Any, context: Any) -> None:  # noqa: N802 - the method's name
        """Tell how a service is, now and whenever that changes."""
        await self._begin(context)
        if self._ended:
            return
        task = asyncio.ensure_future(super().Watch(request, context))
        self._watches.add(task)
        task.add_done_callback(self._watches.discard)
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:  # the client has gone
            task.cancel()
            raise
        with contextlib.suppress(asyncio.CancelledError):  # we have ended it
            task.result()

    async def _begin(self, context: Any) -> None:
        if not self._told:
            await self.serve(on=False)
        if self._metadata:
            await context.send_initial_metadata(self._metadata)


def add_health(servicer: HealthServicer | AsyncHealthServicer, server: Any) -> None:
    """Let ``server`` answer ``grpc.health.v1``; before it is started."""
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)


def _status(*, on: bool) -> Any:
    return _SERVING if on else _NOT_SERVING


def _identity(instance_id: str) -> tuple[tuple[str, str], ...]:
    return ((INSTANCE_KEY, instance_id),) if instance_id else ()
