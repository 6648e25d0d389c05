"""Drives the watch machines of a session: all of them over one stream.

The stream is opened while something is watched.  When it breaks, the next member is tried, at first at
once and then with backoff, without an end.  Lists run beside the stream, so that a long one delays no
other watch, and few at a time, so that many services do not storm an etcd that has just come back.

A stream that says nothing proves nothing: the member behind it may have stopped.  gRPC's own pings tell
after 8 s.  We ask sooner: after some seconds of silence, and at once when a request to the same member
has not been answered.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from etcd_grpc.codec import Entry
from etcd_grpc.errors import AuthenticationError, EtcdError, EtcdUnavailableError
from etcd_grpc.etcd import methods, rpc_pb2, watch
from etcd_grpc.etcd.backoff import Backoff
from etcd_grpc.etcd.failure import permission_hint
from etcd_grpc.etcd.transport import Stream, Transport
from etcd_grpc.outage import Outage
from etcd_grpc.telemetry import emit, events

__all__ = ["Sink", "Watcher"]

_log = logging.getLogger("etcd_grpc.etcd")

_PAGE = 2000
_LIST_TIMEOUT_S = 10.0
_LISTS_AT_A_TIME = 8
# After so much silence the member is asked whether it is there; sooner while it owes us an answer.
_SILENCE_S = 5.0
_OWED_S = 1.0
# A stream is moved to a member chosen at random after about this long: when members come back or are
# added, the load finds its way to them without anything breaking.
MAX_AGE_S = 1800.0
_AGE_JITTER = 0.2

_WatchStream = Stream[rpc_pb2.WatchRequest, rpc_pb2.WatchResponse]


class Sink(Protocol):
    """Who wants to know what stands at some keys.  Called on the session's loop; must not block."""

    def replace(self, entries: Sequence[Entry], revision: int) -> None:
        """All that stands there at ``revision``."""

    def apply(self, entries: Sequence[Entry], revision: int) -> None:
        """New events, in order, up to ``revision``."""

    def followed(self, yes: bool, why: str) -> None:
        """Whether the keys are being followed; if not, ``why``."""


class _Watch:
    """Some keys, their machine, and its number on the stream, which is a new one at every creation."""

    __slots__ = ("backoff", "key", "listing", "machine", "number", "range_end", "refused", "sink")

    def __init__(
        self, key: bytes, range_end: bytes, sink: Sink, backoff: Backoff, machine: watch.WatchMachine
    ) -> None:
        self.number = 0  # 0: none on the current stream
        self.key = key
        self.range_end = range_end
        self.sink = sink
        self.backoff = backoff
        self.machine = machine
        self.listing: asyncio.Task[None] | None = None
        self.refused = False  # since it was last created


class Watcher:
    """Follows any number of keys and prefixes.  Used on the session's loop only."""

    def __init__(
        self,
        transport: Transport,
        loop: asyncio.AbstractEventLoop,
        rng: random.Random,
        *,
        max_age_s: float = MAX_AGE_S,
    ) -> None:
        self._transport = transport
        self._loop = loop
        self._rng = rng
        self._watches: dict[int, _Watch] = {}  # by the handle that ``add`` returned
        self._on_stream: dict[int, _Watch] = {}  # by the number on the current stream
        self._last_handle = 0
        self._last_number = 0
        self._stream: _WatchStream | None = None
        self._creating: deque[int] = deque()  # watches whose creation etcd has not answered yet
        self._runner: asyncio.Task[None] | None = None
        self._outage = Outage()
        self._told_connected = False
        self._renewing = False
        self._max_age_s = max_age_s
        self._heard_at = 0.0  # when the stream last said something, or its member answered
        self._doubt = asyncio.Event()  # the stream's member has not answered somebody
        self._lists = asyncio.Semaphore(_LISTS_AT_A_TIME)
        transport.on_silence = self._doubted

    def add(self, prefix: bytes, sink: Sink) -> int:
        """Follow ``prefix`` until ``remove`` is called with the returned handle."""
        return self._add(prefix, methods.prefix_end(prefix), sink, watch.WatchMachine())

    def add_key(self, key: bytes, sink: Sink, known: tuple[int, int] | None = None) -> int:
        """Follow one key.

        Args:
            key: The key.
            sink: What is told.
            known: Revision and cluster id as of which it is known, so that it need not be read.
        """
        return self._add(key, b"", sink, watch.WatchMachine(known))

    def _add(self, key: bytes, range_end: bytes, sink: Sink, machine: watch.WatchMachine) -> int:
        self._last_handle += 1
        item = _Watch(key, range_end, sink, self._backoff(), machine)
        self._watches[self._last_handle] = item
        if machine.state is watch.State.LISTING:
            self._list(item)
        if self._stream is not None:
            self._carry_out(item, item.machine.stream_opened())
        if self._runner is None:
            self._runner = self._loop.create_task(self._run())
        return self._last_handle

    def remove(self, handle: int) -> None:
        """Stop following; without any watch left the stream is closed."""
        item = self._watches.pop(handle, None)
        if item is None:
            return
        if item.listing is not None:
            item.listing.cancel()
        if self._watches:
            self._cancel(item)
        else:
            self.close()

    def close(self) -> None:
        """Stop everything; no sink is called any more."""
        for item in self._watches.values():
            if item.listing is not None:
                item.listing.cancel()
        self._watches.clear()
        if self._runner is not None:
            self._runner.cancel()
            self._runner = None
        self._drop_stream()

    def _backoff(self) -> Backoff:
        return Backoff(self._rng, free=len(self._transport.members))

    async def _run(self) -> None:
        backoff = self._backoff()
        while True:
            member, delay_s = self._transport.member, 0.0
            try:
                await self._follow_stream(backoff)
            except EtcdError as error:
                if self._renewing:
                    continue  # we ended it ourselves, for a new token
                self._transport.rotate(member)
                self._transport.last_error = str(error)
                begins = not self._outage.broken
                say = self._outage.failed(self._loop.time())
                if begins or say:
                    emit(events.Disconnected(member, str(error)), logged=say)
                for item in self._watches.values():
                    item.sink.followed(False, str(error))
                delay_s = backoff.next_delay()
            finally:
                self._drop_stream()
            await asyncio.sleep(delay_s)

    async def _follow_stream(self, backoff: Backoff) -> None:
        """Read one stream until it breaks, or until it is time for another member.

        Raises:
            EtcdError: It broke.
        """
        self._renewing = False
        stream = self._stream = await self._transport.stream(methods.WATCH)
        self._creating.clear()
        for item in self._watches.values():
            self._carry_out(item, item.machine.stream_opened())
        pulse = self._loop.create_task(self._feel_pulse(stream))
        jitter = self._rng.uniform(1 - _AGE_JITTER, 1 + _AGE_JITTER)
        try:
            async with asyncio.timeout(self._max_age_s * jitter):
                while True:
                    self._heard(stream, await stream.receive(), backoff)
        except TimeoutError:
            if self._transport.spread():
                emit(events.Moved(stream.member, self._transport.member))
        finally:
            pulse.cancel()

    def _heard(self, stream: _WatchStream, response: rpc_pb2.WatchResponse, backoff: Backoff) -> None:
        self._heard_at = self._loop.time()
        backoff.reset()
        lasted_s = self._outage.worked(self._heard_at)
        if lasted_s is not None:
            emit(events.Reconnected(stream.member, lasted_s), logged=self._outage.told)
        elif not self._told_connected:
            emit(events.Connected(stream.member))
        self._told_connected = True
        self._receive(response)

    async def _feel_pulse(self, stream: _WatchStream) -> None:
        """Break the stream when its member answers nothing any more."""
        self._heard_at = self._loop.time()
        self._doubt.clear()
        while True:
            patience = _OWED_S if self._creating else _SILENCE_S
            try:
                async with asyncio.timeout_at(self._heard_at + patience):
                    await self._doubt.wait()
                self._doubt.clear()
            except TimeoutError:
                if self._loop.time() < self._heard_at + patience:
                    continue  # it has spoken meanwhile
            if not await self._transport.answers(stream.member):
                silent = f"etcd member {stream.member} does not answer any more"
                stream.fail(EtcdUnavailableError(silent))
                return
            self._heard_at = self._loop.time()

    def _doubted(self, member: str) -> None:
        if self._stream is not None and self._stream.member == member:
            self._doubt.set()

    def _receive(self, response: rpc_pb2.WatchResponse) -> None:
        number = response.watch_id
        if response.created and self._creating:
            # A creation that is refused may be answered with the id -1; answers come in order.
            number = self._creating.popleft()
        item = self._on_stream.get(number)
        if item is None:
            return  # given up meanwhile
        effects = item.machine.receive(response)
        if item.machine.state is watch.State.WATCHING and response.created:
            item.backoff.reset()
            item.refused = False
            item.sink.followed(True, "")
        self._carry_out(item, effects)

    def _drop_stream(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        self._on_stream.clear()
        for item in self._watches.values():
            item.machine.stream_broken()

    def _carry_out(self, item: _Watch, effects: Sequence[watch.Effect]) -> None:
        for effect in effects:
            match effect:
                case watch.List(compacted, found):
                    key, seen = _text(item.key), item.machine.revision
                    if compacted:
                        emit(events.Compacted(key, compacted))
                    else:
                        emit(events.StoreReplaced(key, found, seen))
                    self._cancel(item)
                    self._list(item)
                case watch.Create(start_revision):
                    self._create(item, start_revision)
                case watch.Deliver(entries, revision):
                    self._hand_on(item, item.sink.apply, entries, revision)
                case watch.Replace(entries, revision):
                    self._hand_on(item, item.sink.replace, entries, revision)
                case watch.Refused(reason):
                    self._refused(item, reason)

    def _hand_on(
        self,
        item: _Watch,
        receiver: Callable[[Sequence[Entry], int], None],
        entries: Sequence[Entry],
        revision: int,
    ) -> None:
        """A defect in a receiver must not end the watch, which would freeze discovery silently."""
        try:
            receiver(entries, revision)
        except Exception:  # noqa: BLE001 - see above
            _log.exception("what stands at %r at revision %d was not taken", item.key, revision)

    def _create(self, item: _Watch, start_revision: int) -> None:
        if self._stream is None:
            return
        self._last_number += 1
        item.number = self._last_number
        self._on_stream[item.number] = item
        request = rpc_pb2.WatchCreateRequest(
            key=item.key,
            range_end=item.range_end,
            start_revision=start_revision,
            progress_notify=True,
            watch_id=item.number,
            fragment=True,
        )
        self._creating.append(item.number)
        self._stream.send(rpc_pb2.WatchRequest(create_request=request))

    def _cancel(self, item: _Watch) -> None:
        """Give the item's watch on the current stream up; etcd may have ended it already."""
        if self._on_stream.pop(item.number, None) is not None and self._stream is not None:
            cancel = rpc_pb2.WatchCancelRequest(watch_id=item.number)
            self._stream.send(rpc_pb2.WatchRequest(cancel_request=cancel))

    def _refused(self, item: _Watch, reason: str) -> None:
        """Most often a token that has expired; a missing permission looks the same.

        The token belongs to the stream, so a new one needs a new stream: once, and without a word.  If
        that does not help it is the permission, and this watch alone is asked for again, at most once
        a second.
        """
        self._on_stream.pop(item.number, None)
        if not item.refused and self._transport.user and self._stream is not None:
            item.refused = self._renewing = True
            self._transport.forget_token()
            self._stream.close()
            return
        if "permission denied" in reason:
            asked = rpc_pb2.WatchCreateRequest(key=item.key, range_end=item.range_end)
            reason = f"{reason}: {permission_hint(self._transport.user, asked)}"
        emit(events.WatchRefused(_text(item.key), reason))
        item.sink.followed(False, f"etcd refused the watch: {reason}")

        def ask_again() -> None:
            if self._stream is not None and item in self._watches.values():
                self._carry_out(item, item.machine.stream_opened())

        self._loop.call_later(max(1.0, item.backoff.next_delay()), ask_again)

    def _list(self, item: _Watch) -> None:
        item.listing = self._loop.create_task(self._listed(item))

    async def _listed(self, item: _Watch) -> None:
        """Range until it works, and tell the machine."""
        backoff = self._backoff()
        while True:
            try:
                async with self._lists:
                    entries, header = await self._range(item)
            except EtcdError as error:
                delay = backoff.next_delay()
                if isinstance(error, AuthenticationError):
                    delay = max(delay, 1.0)
                item.sink.followed(False, str(error))
                await asyncio.sleep(delay)
            else:
                break
        item.listing = None
        self._carry_out(item, item.machine.listed(entries, header.revision, header.cluster_id))

    async def _range(self, item: _Watch) -> tuple[list[Entry], rpc_pb2.ResponseHeader]:
        """All entries of ``item``, in pages that are read at one revision."""
        entries: list[Entry] = []
        request = rpc_pb2.RangeRequest(key=item.key, range_end=item.range_end, limit=_PAGE)
        header: rpc_pb2.ResponseHeader | None = None
        while True:
            page = await self._transport.call(methods.RANGE, request, timeout_s=_LIST_TIMEOUT_S)
            entries += (Entry(kv.key, kv.value, kv.mod_revision) for kv in page.kvs)
            if header is None:
                header = page.header
                request.revision = header.revision
            if not page.more:
                return entries, header
            request.key = entries[-1].key + b"\0"


def _text(key: bytes) -> str:
    return key.decode(errors="backslashreplace")
