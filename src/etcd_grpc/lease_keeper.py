"""One lease kept for ever: the task around the state machine of ``etcd.lease``."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from etcd_grpc.errors import EtcdError
from etcd_grpc.etcd import lease, methods
from etcd_grpc.etcd import rpc_pb2 as rpc
from etcd_grpc.etcd.backoff import Backoff
from etcd_grpc.etcd.session import Session
from etcd_grpc.etcd.transport import ATTEMPT_S
from etcd_grpc.telemetry import emit, events

__all__ = ["LeaseKeeper"]

_log = logging.getLogger("etcd_grpc.registry")


class LeaseKeeper:
    """Grants a lease, keeps it alive, and grants another when etcd has forgotten it.

    Args:
        session: The session with etcd; everything happens on its loop.
        ttl_s: The TTL to ask for, in seconds.
        granted: Called when there is a new lease.
        works: Called with our backoff when etcd has answered.
        failed: Called with what a request came to.
    """

    def __init__(
        self,
        session: Session,
        ttl_s: int,
        *,
        granted: Callable[[], None],
        works: Callable[[Backoff], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._session = session
        self._machine = lease.LeaseMachine(ttl_s)
        self._granted = granted
        self._works = works
        self._failed = failed
        self._task: asyncio.Task[None] | None = None
        self.ours: set[int] = set()  # the ids of all that we have had

    @property
    def lease_id(self) -> int:
        """The lease's id; 0: there is none now."""
        return self._machine.lease_id

    @property
    def held(self) -> bool:
        """Whether, as far as etcd has told us, the lease exists."""
        return self._machine.held

    @property
    def generation(self) -> int:
        """How often one was granted."""
        return self._machine.generation

    @property
    def ttl_s(self) -> int:
        """The TTL that is asked for, in seconds."""
        return self._machine.ttl_s

    @property
    def expires_at(self) -> float:
        """When it would expire without a further beat, on the loop's clock."""
        return self._machine.expires_at

    def start(self) -> None:
        """Begin; once, until ``stop``."""
        self._task = self._session.loop.create_task(self._keep())

    def stop(self) -> asyncio.Task[None] | None:
        """Keep it no longer; returns what is to be cancelled and awaited for that."""
        task, self._task = self._task, None
        return task

    def lost(self) -> None:
        """etcd does not know it any more, as was learned while our task sleeps until the next beat."""
        emit(events.LeaseLost(self._machine.lease_id))
        self._machine.lost()
        if self._task is not None:
            self._task.cancel()
            self.start()

    async def revoke(self) -> None:
        """Give it back, after ``stop``, and with it all keys under it; in one attempt."""
        lease_id = self._machine.lease_id
        self._machine.lost()
        try:
            await self._session.transport.call(
                methods.LEASE_REVOKE, rpc.LeaseRevokeRequest(ID=lease_id), timeout_s=1.0
            )
        except EtcdError as error:
            _log.info("the lease is left to expire: %s", error)

    async def _keep(self) -> None:
        backoff = Backoff(self._session.rng, free=1)
        loop = self._session.loop
        while True:
            now = loop.time()
            action = self._machine.next_action(now)
            try:
                match action:
                    case lease.Grant(ttl_s):
                        await self._grant(ttl_s, now)
                    case lease.KeepAlive(lease_id):
                        await self._keep_alive(lease_id, now)
                    case lease.Wait(until):
                        await asyncio.sleep(until - now)
                        continue
                self._works(backoff)
            except Exception as error:  # noqa: BLE001 - whatever it is: the lease must be kept
                self._failed(error)
                self._machine.failed(loop.time(), backoff.next_delay())

    async def _grant(self, ttl_s: int, now: float) -> None:
        request = rpc.LeaseGrantRequest(TTL=ttl_s)
        answer = await self._session.transport.call(methods.LEASE_GRANT, request)
        self._machine.granted(answer.ID, answer.TTL, now)
        self.ours.add(answer.ID)
        emit(events.LeaseGranted(answer.ID, answer.TTL, again=self._machine.generation > 1))
        self._granted()

    async def _keep_alive(self, lease_id: int, now: float) -> None:
        # On the wire a stream of one request and one answer is a unary call, and so it gets what a
        # stream lacks: a deadline.  A member that hangs is left after ATTEMPT_S.
        request = rpc.LeaseKeepAliveRequest(ID=lease_id)
        answer = await self._session.transport.call(
            methods.LEASE_KEEP_ALIVE, request, attempt_s=min(ATTEMPT_S, self._machine.ttl_s / 4)
        )
        self._machine.kept(answer.TTL, now)
        if not self._machine.held:
            emit(events.LeaseLost(lease_id))
