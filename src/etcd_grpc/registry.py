"""Registration as intent: told what should stand in etcd, the registrar makes it so, again and again.

One registrar has one lease, however many instances are registered through it.  Two tasks on the
session's loop: one keeps the lease alive, one puts what is missing.  A lease that etcd has forgotten
is granted anew, and everything under it is put again.

A key is written by a transaction that compares its ``mod_revision`` with the one we know.  So a
request whose answer was lost can be repeated: if it did arrive, the second attempt finds our own value
and is content; and one that arrives late cannot bring a key back that was withdrawn meanwhile.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging

from etcd_grpc.codec import Codec
from etcd_grpc.errors import (
    AuthenticationError,
    ConfigurationError,
    EtcdError,
    EtcdUnavailableError,
)
from etcd_grpc.etcd import lease, methods
from etcd_grpc.etcd import rpc_pb2 as rpc
from etcd_grpc.etcd.backoff import Backoff
from etcd_grpc.etcd.outage import Outage
from etcd_grpc.etcd.session import Session
from etcd_grpc.etcd.transport import ATTEMPT_S
from etcd_grpc.model import Instance, Status

__all__ = ["Intent", "Registrar"]

_log = logging.getLogger("etcd_grpc.registry")

# Etcd answers a put that names a forgotten lease with this.
_NO_LEASE = "requested lease not found"


class Intent:
    """One instance that should stand in etcd, and how far that is true."""

    __slots__ = ("instance", "key", "placed", "revision", "value", "wanted")

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.key = b""
        self.value = b""
        self.revision = 0  # mod_revision of the key as we know it; 0: it does not exist
        self.wanted = 0  # counts what was asked for ...
        self.placed = (0, 0)  # ... and this is (generation of the lease, wanted) in etcd


class Registrar:
    """Keeps instances registered under one lease.  Used on the session's loop only.

    Args:
        session: The session with etcd.
        codec: The layout in which instances are written.
        ttl_s: The lease's TTL, in seconds: how long a crashed process stays registered.
    """

    def __init__(self, session: Session, codec: Codec, ttl_s: int) -> None:
        self._session = session
        self._codec = codec
        self._lease = lease.LeaseMachine(ttl_s)
        self._intents: dict[bytes, Intent] = {}
        self._changed = asyncio.Condition()  # something is wanted, placed, granted or lost
        self._trouble: EtcdError | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._outage = Outage()

    @property
    def idle(self) -> bool:
        """Whether nothing is registered."""
        return not self._intents

    async def add(self, instance: Instance, timeout_s: float) -> Intent:
        """Register; return when the key stands in etcd.

        Raises:
            EtcdError: It could not be done within ``timeout_s`` seconds.  Nothing stays wanted then.
        """
        intent = Intent(instance)
        if self._codec.encode(instance)[0] in self._intents:
            raise ConfigurationError(
                f"{instance.service} at {instance.address} is already registered by this process"
            )
        await self._want(intent, instance)
        self._start()
        try:
            await self._until_placed(intent, timeout_s)
        except BaseException:
            await self._forget(intent)
            if self._intents:  # the lease lives on, and a put whose answer was lost with it
                await self._delete_quietly(intent)
            raise
        return intent

    async def change(self, intent: Intent, instance: Instance, timeout_s: float) -> None:
        """Replace what ``intent`` says by ``instance`` (of the same key), and wait until it stands.

        Raises:
            EtcdError: It does not stand yet after ``timeout_s`` seconds; it stays wanted.
        """
        await self._want(intent, instance)
        await self._until_placed(intent, timeout_s)

    async def withdraw(self, intent: Intent, *, settle_s: float, timeout_s: float) -> None:
        """Mark as draining, let clients move away for ``settle_s``, then delete.

        An etcd that does not answer costs at most ``timeout_s``; the key then goes with its lease.
        """
        deadline = self._session.loop.time() + timeout_s
        draining = dataclasses.replace(intent.instance, status=Status.DRAINING)
        try:
            await self.change(intent, draining, timeout_s)
        except EtcdError as error:
            _log.warning("cannot mark %s as draining: %s", intent.instance.address, error)
        else:
            await asyncio.sleep(settle_s)
        left = deadline + settle_s - self._session.loop.time()
        await self._delete_quietly(intent, max(0.1, left))
        await self._forget(intent)

    async def close(self) -> None:
        """Stop keeping the lease."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    # What is wanted.

    async def _want(self, intent: Intent, instance: Instance) -> None:
        intent.key, intent.value = self._codec.encode(instance)
        intent.instance = instance
        intent.wanted += 1
        self._intents[intent.key] = intent
        await self._notify()

    async def _forget(self, intent: Intent) -> None:
        """Want it no longer; a lease that holds nothing is revoked, which also undoes half a put."""
        if self._intents.get(intent.key) is intent:
            del self._intents[intent.key]
        if not self._intents:
            await self.close()
            if self._lease.held:
                await self._revoke()

    async def _until_placed(self, intent: Intent, timeout_s: float) -> None:
        self._trouble = None
        try:
            async with asyncio.timeout(timeout_s), self._changed:
                await self._changed.wait_for(
                    lambda: self._is_placed(intent) or isinstance(self._trouble, AuthenticationError)
                )
        except TimeoutError:
            raise self._explain(intent, timeout_s) from None
        if not self._is_placed(intent):
            raise self._explain(intent, timeout_s)

    def _explain(self, intent: Intent, timeout_s: float) -> EtcdError:
        """Why an instance is not in etcd, as an error of the right kind."""
        trouble = self._trouble
        if trouble is None:
            members = ", ".join(self._session.transport.members)
            trouble = EtcdUnavailableError(f"no etcd member answered in {timeout_s:g} s ({members})")
        instance = intent.instance
        return type(trouble)(f"cannot register {instance.service} at {instance.address}: {trouble}")

    def _is_placed(self, intent: Intent) -> bool:
        return self._lease.held and intent.placed == (self._lease.generation, intent.wanted)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    # Making it so.

    def _start(self) -> None:
        if not self._tasks:
            loop = self._session.loop
            self._tasks = [loop.create_task(self._keep_lease()), loop.create_task(self._keep_keys())]

    def _backoff(self) -> Backoff:
        return Backoff(self._session.rng, free=1)

    async def _keep_lease(self) -> None:
        backoff = self._backoff()
        loop = self._session.loop
        while True:
            now = loop.time()
            action = self._lease.next_action(now)
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
                await self._failed(error)
                self._lease.failed(loop.time(), backoff.next_delay())

    async def _grant(self, ttl_s: int, now: float) -> None:
        request = rpc.LeaseGrantRequest(TTL=ttl_s)
        answer = await self._session.transport.call(methods.LEASE_GRANT, request)
        self._lease.granted(answer.ID, answer.TTL, now)
        if self._lease.generation > 1:
            _log.warning("the lease was lost; registering again under a new one")
        await self._notify()

    async def _keep_alive(self, lease_id: int, now: float) -> None:
        # On the wire a stream of one request and one answer is a unary call, and so it gets what a
        # stream lacks: a deadline.  A member that hangs is left after ATTEMPT_S.
        request = rpc.LeaseKeepAliveRequest(ID=lease_id)
        answer = await self._session.transport.call(
            methods.LEASE_KEEP_ALIVE, request, attempt_s=min(ATTEMPT_S, self._lease.ttl_s / 4)
        )
        self._lease.kept(answer.TTL, now)

    async def _keep_keys(self) -> None:
        backoff = self._backoff()
        while True:
            async with self._changed:
                await self._changed.wait_for(self._missing)
            try:
                await asyncio.gather(*(self._place(intent) for intent in self._missing()))
                self._works(backoff)
            except Exception as error:  # noqa: BLE001 - whatever it is: the keys must stand
                await self._failed(error)
                await asyncio.sleep(backoff.next_delay())

    def _missing(self) -> list[Intent]:
        if not self._lease.held:
            return []
        return [intent for intent in self._intents.values() if not self._is_placed(intent)]

    def _works(self, backoff: Backoff) -> None:
        backoff.reset()
        lasted_s = self._outage.worked(self._session.loop.time())
        if lasted_s is not None:
            _log.warning("etcd takes registrations again, after %.1f s", lasted_s)

    async def _failed(self, error: Exception) -> None:
        if isinstance(error, EtcdError):
            if self._outage.failed(self._session.loop.time()):
                _log.warning("etcd takes no registrations, trying again: %s", error)
            self._trouble = error
        else:
            _log.error("registration is behind, by a defect of this package", exc_info=error)
        await self._notify()

    async def _place(self, intent: Intent) -> None:
        """Put the key under the lease, unless it already stands there as wanted."""
        target = (self._lease.generation, intent.wanted)
        lease_id, value = self._lease.lease_id, intent.value
        request = rpc.TxnRequest(
            compare=[
                rpc.Compare(
                    target=rpc.Compare.MOD,
                    result=rpc.Compare.EQUAL,
                    key=intent.key,
                    mod_revision=intent.revision,
                )
            ],
            success=[
                rpc.RequestOp(request_put=rpc.PutRequest(key=intent.key, value=value, lease=lease_id))
            ],
            failure=[rpc.RequestOp(request_range=rpc.RangeRequest(key=intent.key))],
        )
        try:
            answer = await self._session.transport.call(methods.TXN, request)
        except EtcdError as error:
            if _NO_LEASE not in str(error):
                raise
            self._lease.lost()
            self._restart_lease()
            return
        if answer.succeeded:
            intent.revision = answer.header.revision
            intent.placed = target
            await self._notify()
            return
        found = answer.responses[0].response_range.kvs
        intent.revision = found[0].mod_revision if found else 0
        ours = bool(found) and found[0].lease == lease_id
        if ours and found[0].value == value:
            intent.placed = target
        elif not ours and intent.instance.status is Status.DRAINING:
            intent.placed = target  # another process has taken the address over: it is no longer ours
        await self._notify()

    def _restart_lease(self) -> None:
        """The keeper sleeps until the next beat of a lease that is gone: let it look at once."""
        if self._tasks:
            self._tasks[0].cancel()
            self._tasks[0] = self._session.loop.create_task(self._keep_lease())

    async def _delete(self, intent: Intent) -> None:
        """Delete the key if it is still ours: another process may have taken the address over."""
        request = rpc.TxnRequest(
            compare=[
                rpc.Compare(
                    target=rpc.Compare.LEASE,
                    result=rpc.Compare.EQUAL,
                    key=intent.key,
                    lease=self._lease.lease_id,
                )
            ],
            success=[rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=intent.key))],
        )
        await self._session.transport.call(methods.TXN, request)

    async def _delete_quietly(self, intent: Intent, timeout_s: float = 1.0) -> None:
        """Delete, or say that the lease's end has to do it."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._delete(intent)
        except (EtcdError, TimeoutError) as error:
            _log.warning(
                "%s could not be withdrawn from etcd; its key goes with its lease (TTL %d s): %s",
                intent.instance.address,
                self._lease.ttl_s,
                error or "timed out",
            )

    async def _revoke(self) -> None:
        lease_id = self._lease.lease_id
        self._lease.lost()
        try:
            await self._session.transport.call(
                methods.LEASE_REVOKE, rpc.LeaseRevokeRequest(ID=lease_id), timeout_s=1.0
            )
        except EtcdError as error:
            _log.info("the lease is left to expire: %s", error)
