"""Registration as intent: told what should stand in etcd, the registrar makes it so, again and again.

One registrar has one lease, however many instances are registered through it.  Two tasks on the
session's loop: one keeps the lease alive (``lease_keeper``), one puts what is missing and deletes what
is left over.  A lease that etcd has forgotten is granted anew, and everything under it is put again.
Each key is watched, so one that somebody deletes is put again at once, and one that another process
takes over is left to it until it is gone (the rules are in ``ownership``).
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging

from etcd_grpc.codec import Codec
from etcd_grpc.contest import decide
from etcd_grpc.errors import (
    AuthenticationError,
    ConfigurationError,
    DuplicateInstanceError,
    EtcdError,
    EtcdUnavailableError,
)
from etcd_grpc.etcd import methods
from etcd_grpc.etcd import rpc_pb2 as rpc
from etcd_grpc.etcd.backoff import Backoff
from etcd_grpc.etcd.failure import LeaseNotFoundError
from etcd_grpc.etcd.session import Session
from etcd_grpc.intent import Intent, delete_request, found_in, put_request
from etcd_grpc.key_guard import KeyGuard
from etcd_grpc.lease_keeper import LeaseKeeper
from etcd_grpc.model import Instance, Status
from etcd_grpc.outage import Outage
from etcd_grpc.ownership import Found, Verdict, judge
from etcd_grpc.telemetry import emit, events
from etcd_grpc.wakeup import Wakeup

__all__ = ["Registrar"]

_log = logging.getLogger("etcd_grpc.registry")

# So that a process with hundreds of registrations does not storm an etcd that has just come back.
_PUTS_AT_A_TIME = 16


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
        self._intents: dict[bytes, Intent] = {}
        # Wanted no longer, but perhaps still in etcd, under a lease that lives on: by their keys.
        self._left_over: dict[bytes, Intent] = {}
        self._changed = Wakeup()  # something is wanted, placed, granted, lost or refused
        self._lease = LeaseKeeper(
            session, ttl_s, granted=self._changed.tell, works=self._works, failed=self._failed
        )
        self._trouble: EtcdError | None = None
        self._keeper: asyncio.Task[None] | None = None  # of the keys
        self._contests: set[asyncio.Task[None]] = set()
        self._outage = Outage()
        self._puts = asyncio.Semaphore(_PUTS_AT_A_TIME)

    async def add(self, instance: Instance, timeout_s: float, *, required: bool = True) -> Intent:
        """Register; return when the key stands in etcd.

        With ``required=False``, return after ``timeout_s`` also when etcd cannot be reached: the
        instance is registered as soon as it can.

        Raises:
            DuplicateInstanceError: A live process is registered under the same id.
            EtcdError: It could not be done within ``timeout_s`` seconds.  Nothing stays wanted then.
        """
        key, value = self._codec.encode(instance)
        if key in self._intents:
            raise ConfigurationError(
                f"{instance.service} at {instance.address} is already registered by this process"
            )
        self._left_over.pop(key, None)
        intent = self._intents[key] = Intent(instance, key)
        intent.want(instance, value)
        self._start()
        self._changed.tell()
        try:
            await self._until_placed(intent, timeout_s)
        except BaseException as error:
            if isinstance(error, EtcdUnavailableError) and not required:
                return intent
            await self._forget(intent)
            if self._intents:  # the lease lives on, and a put whose answer was lost with it
                await self._delete(intent)
            raise
        return intent

    async def change(self, intent: Intent, instance: Instance, timeout_s: float) -> None:
        """Replace what ``intent`` says by ``instance`` (of the same key), and wait until it stands.

        Raises:
            EtcdError: It does not stand yet after ``timeout_s`` seconds; it stays wanted.
        """
        intent.want(instance, self._codec.encode(instance)[1])
        self._changed.tell()
        await self._until_placed(intent, timeout_s)

    async def mark(self, intent: Intent, status: Status, timeout_s: float) -> bool:
        """Let ``intent`` say ``status``; return whether that stands in etcd within ``timeout_s``.

        An intent that has not been in etcd yet will say it when it comes there.
        """
        marked = dataclasses.replace(intent.instance, status=status)
        if not intent.stood or intent.yielded:
            intent.want(marked, self._codec.encode(marked)[1])
            return False
        try:
            await self.change(intent, marked, timeout_s)
        except EtcdError as error:
            _log.warning("not marked as %s: %s", status, error)
            return False
        return True

    async def remove(self, intent: Intent, timeout_s: float) -> None:
        """Delete the key; want it no longer, whatever comes of that.

        If etcd does not answer within ``timeout_s``, the key goes with its lease, or, if others keep
        that alive, as soon as etcd can be reached.
        """
        intent.leaving = True
        why = "" if intent.yielded else "interrupted"
        try:
            if not intent.yielded:
                why = await self._delete(intent, timeout_s)
        finally:
            await self._forget(intent, revoke=not why)
        emit(events.Withdrawn(intent.instance.service, intent.instance.address, why))

    async def withdraw(self, intent: Intent, *, settle_s: float, timeout_s: float) -> None:
        """Mark as draining, let clients move away for ``settle_s``, then delete.

        What is draining already had its time: it is deleted at once.  An etcd that is silent costs
        at most ``timeout_s``; see ``remove`` for what becomes of the key then.
        """
        deadline = self._session.loop.time() + timeout_s
        drained = intent.instance.status is Status.DRAINING
        if not drained and await self.mark(intent, Status.DRAINING, timeout_s):
            deadline += settle_s
            await asyncio.sleep(settle_s)
        await self.remove(intent, max(0.1, deadline - self._session.loop.time()))

    async def close(self) -> None:
        """Stop keeping the lease and the keys."""
        tasks = [self._keeper, self._lease.stop(), *self._contests]
        self._keeper = None  # whoever registers while we wait begins anew
        ending = [task for task in tasks if task is not None and task.cancel()]
        await asyncio.gather(*ending, return_exceptions=True)

    def stands(self, intent: Intent) -> bool:
        """Whether ``intent`` is in etcd, as far as etcd has told us."""
        return self._lease.held and intent.stands(self._lease.generation)

    # What is wanted.

    async def _forget(self, intent: Intent, *, revoke: bool = True) -> None:
        """Want it no longer; a lease that holds nothing is revoked, which also undoes half a put."""
        intent.leaving = True
        if intent.watch is not None:
            self._session.watcher.remove(intent.watch)
            intent.watch = None
        if self._intents.get(intent.key) is intent:
            del self._intents[intent.key]
        if not self._intents:
            await self.close()
            if self._lease.held and revoke and not self._intents:
                self._left_over.clear()
                await self._lease.revoke()

    async def _until_placed(self, intent: Intent, timeout_s: float) -> None:
        """Wait, for as long as a contest takes and ``timeout_s`` besides.

        Raises:
            DuplicateInstanceError: The contest is lost.
            EtcdError: It does not stand yet.
        """
        self._trouble = None

        def decided() -> bool:
            refused = intent.refusal is not None or isinstance(self._trouble, AuthenticationError)
            return self.stands(intent) or refused

        try:
            async with asyncio.timeout(timeout_s) as limit:
                while not decided():
                    await self._changed.wait()
                    if intent.contest:
                        limit.reschedule(None)
                    elif limit.when() is None:
                        limit.reschedule(self._session.loop.time() + timeout_s)
        except TimeoutError:
            raise self._explain(intent, timeout_s) from None
        if intent.refusal is not None:
            raise intent.refusal
        if not self.stands(intent):
            raise self._explain(intent, timeout_s)

    def _explain(self, intent: Intent, timeout_s: float) -> EtcdError:
        """Why an instance is not in etcd as wanted, as an error of the right kind."""
        instance, trouble = intent.instance, self._trouble
        if intent.yielded:
            trouble = EtcdError(f"another process has taken the key {intent.key.decode()!r}")
        elif trouble is None:
            members = ", ".join(self._session.transport.members)
            trouble = EtcdUnavailableError(f"no etcd member answered in {timeout_s:g} s ({members})")
        what = "change the entry of" if intent.stood else "register"
        return type(trouble)(f"cannot {what} {instance.service} at {instance.address}: {trouble}")

    # The keys.

    def _start(self) -> None:
        if self._keeper is None:
            self._lease.start()
            self._keeper = self._session.loop.create_task(self._keep_keys())

    async def _keep_keys(self) -> None:
        backoff = Backoff(self._session.rng, free=1)
        while True:
            missing, left_over = self._missing(), self._deletable()
            if not missing and not left_over:
                await self._changed.wait()
                continue
            try:
                await asyncio.gather(*map(self._place, missing), *map(self._clear_away, left_over))
                self._works(backoff)
            except Exception as error:  # noqa: BLE001 - whatever it is: the keys must stand
                self._failed(error)
                await asyncio.sleep(backoff.next_delay())

    def _missing(self) -> list[Intent]:
        if not self._lease.held:
            return []
        generation = self._lease.generation
        return [intent for intent in self._intents.values() if intent.missing(generation)]

    def _deletable(self) -> list[Intent]:
        return list(self._left_over.values()) if self._lease.held else []

    def _works(self, backoff: Backoff) -> None:
        backoff.reset()
        lasted_s = self._outage.worked(self._session.loop.time())
        if lasted_s is not None and self._outage.told:
            _log.warning("etcd takes registrations again, after %.1f s", lasted_s)

    def _failed(self, error: Exception) -> None:
        if isinstance(error, EtcdError):
            begins = not self._outage.broken
            say = self._outage.failed(self._session.loop.time())
            if begins or say:
                emit(events.RegistrationFailed(str(error)), logged=say)
            self._trouble = error
        else:
            _log.error("registration is behind, by a defect of this package", exc_info=error)
        self._changed.tell()

    async def _place(self, intent: Intent) -> None:
        """Put the key under the lease, unless it already stands there as wanted."""
        target = (self._lease.generation, intent.wanted)
        lease_id, value, doubts = self._lease.lease_id, intent.value, intent.doubts
        try:
            async with self._puts:
                answer = await self._session.transport.call(methods.TXN, put_request(intent, lease_id))
        except LeaseNotFoundError:
            if self._lease.lease_id == lease_id:
                self._lease.lost()
            return
        if intent.doubts != doubts:
            pass  # the watch was faster than the answer, and told what came after it: look again
        elif answer.succeeded:
            intent.revision = answer.header.revision
            self._placed(intent, target)
        else:
            found = found_in(answer)
            verdict = judge(
                found,
                value,
                lease_id,
                self._lease.ours,
                stood=intent.stood,
                named=intent.instance.named,
            )
            self._carry_out(verdict, intent, found, target)
        self._guard(intent, answer.header)
        self._changed.tell()

    def _carry_out(
        self, verdict: Verdict, intent: Intent, found: Found | None, target: tuple[int, int]
    ) -> None:
        intent.revision = found.revision if found else 0
        if verdict is Verdict.STANDS:
            self._placed(intent, target)
        elif verdict is Verdict.YIELD:
            intent.yielded = True
            self._tell_overtaken(intent)
        elif verdict is Verdict.CONTEST and found is not None:
            intent.yielded = True
            intent.contest = found.lease
            contest = self._session.loop.create_task(self._contest(intent))
            self._contests.add(contest)
            contest.add_done_callback(self._contests.discard)

    def _placed(self, intent: Intent, target: tuple[int, int]) -> None:
        lost = intent.lost or intent.placed[0] not in (0, target[0])
        again, service, address = intent.stood, intent.instance.service, intent.instance.address
        intent.placed, intent.stood, intent.lost = target, True, False
        if lost:
            emit(events.Registered(service, address, intent.key.decode(), again=again))

    def _tell_overtaken(self, intent: Intent) -> None:
        instance = intent.instance
        emit(events.RegistrationOvertaken(instance.service, instance.address, intent.key.decode()))

    def _guard(self, intent: Intent, header: rpc.ResponseHeader) -> None:
        """Watch the key from here on."""
        if intent.watch is None and not intent.leaving:
            sink = KeyGuard(intent, self._changed)
            watcher = self._session.watcher
            intent.watch = watcher.add_key(intent.key, sink, (header.revision, header.cluster_id))

    async def _contest(self, intent: Intent) -> None:
        """Find out whether the process that holds the key is alive; if it is not, the key is ours."""
        against = await decide(self._session, intent.contest, self._failed)
        if intent.contest:  # else the key went meanwhile
            self._settle_contest(intent, against)

    def _settle_contest(self, intent: Intent, against: str) -> None:
        instance = intent.instance
        intent.contest = 0
        intent.yielded = bool(against)
        if against:
            intent.refusal = DuplicateInstanceError(
                f"{instance.service} has an instance {instance.id!r} already ({against}): give every "
                "instance an id of its own, or none"
            )
            self._tell_overtaken(intent)
        self._changed.tell()

    async def _delete(self, intent: Intent, timeout_s: float = 1.0) -> str:
        """Delete the key if it is ours; return why it may stand for a while yet, if so."""
        self._left_over[intent.key] = intent
        try:
            async with asyncio.timeout(timeout_s):
                await self._clear_away(intent)
        except (EtcdError, TimeoutError) as error:
            why = str(error) or "timed out"
            _log.warning(
                "%s could not be withdrawn from etcd; its key goes when etcd can be reached, or with "
                "its lease (TTL %d s): %s",
                intent.instance.address,
                self._lease.ttl_s,
                why,
            )
            return why
        finally:
            self._changed.tell()
        return ""

    async def _clear_away(self, intent: Intent) -> None:
        """Delete what is left over."""
        request = delete_request(intent, self._lease.lease_id)
        async with self._puts:
            await self._session.transport.call(methods.TXN, request)
        if self._left_over.get(intent.key) is intent:
            del self._left_over[intent.key]
