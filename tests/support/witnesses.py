"""The witnesses of a history: writers, the truth, and watchers.  What they prove: see ``history``."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self

import grpc
from tests.support.history import Listed, Told, Write

from etcd_grpc import plane
from etcd_grpc.codec import Entry
from etcd_grpc.config import EtcdConfig
from etcd_grpc.etcd import methods
from etcd_grpc.etcd import rpc_pb2 as rpc
from etcd_grpc.model import Change, Put
from etcd_grpc.resolver import Resolver, Subscription

__all__ = ["Recorder", "Truth", "Watcher", "Writer", "channels_to"]

_KEYS = 10  # of each writer; the first is never deleted
_ATTEMPT_S = 1.0
_PAUSE_S = 0.05  # after a failure


class Writer(threading.Thread):
    """Puts and deletes keys of its own, at a steady pace, until ``enough`` are acknowledged.

    A request whose answer is lost is noted as such and never repeated.  Every value is unique.

    Args:
        number: Which of the writers this is.
        channels: One to each member; a failure moves on to the next.
        service: Under which the keys stand.
        pace_s: Between two requests.
        enough: Asked with the number of acknowledged writes, before each request.
    """

    def __init__(
        self,
        number: int,
        channels: Sequence[grpc.Channel],
        service: str,
        pace_s: float,
        enough: Callable[[int], bool],
    ) -> None:
        super().__init__(name=f"writer-{number}")
        self._number = number
        self._calls = [
            channel.unary_unary(methods.TXN.path, methods.TXN.serialize, methods.TXN.deserialize)
            for channel in channels
        ]
        self._member = number % len(channels)
        self._service = service
        self._pace_s = pace_s
        self._enough = enough
        self._standing: set[bytes] = set()
        self.acknowledged = 0
        self.writes: list[Write] = []

    def run(self) -> None:
        due = time.monotonic()
        asked = 0
        while not self._enough(self.acknowledged):
            self._write(asked)
            asked += 1
            due += self._pace_s
            time.sleep(max(0.0, due - time.monotonic()))

    def _write(self, asked: int) -> None:
        changes = self._changes(asked)
        request = rpc.TxnRequest(success=[_operation(key, value) for key, value in changes.items()])
        try:
            answer = self._calls[self._member](request, timeout=_ATTEMPT_S)
        except grpc.RpcError:
            self.writes.append(Write(frozenset(changes.items()), 0))
            self._standing -= changes.keys()  # nobody knows
            self._member = (self._member + 1) % len(self._calls)
            time.sleep(_PAUSE_S)
            return
        done = {
            key: value
            for (key, value), response in zip(changes.items(), answer.responses, strict=True)
            # A delete whose answer was lost may have come first: then this one changed nothing.
            if value is not None or response.response_delete_range.deleted
        }
        if done:
            self.writes.append(Write(frozenset(done.items()), answer.header.revision))
            self.acknowledged += 1
        for key, value in changes.items():
            (self._standing.discard if value is None else self._standing.add)(key)

    def _changes(self, asked: int) -> dict[bytes, bytes | None]:
        """What the request of this number asks for: a put, a delete, or several puts in one."""
        key = self._key(asked % _KEYS)
        if asked % 7 == 3 and asked % _KEYS and key in self._standing:
            return {key: None}
        keys = [key] if asked % 11 else [key, self._key((asked + 1) % _KEYS)]
        return {key: self._value(asked, index) for index, key in enumerate(keys)}

    def _key(self, index: int) -> bytes:
        return f"{self._service}/{self._number:02}-{index}".encode()

    def _value(self, asked: int, index: int) -> bytes:
        """An endpoint whose address nobody else writes: 10.WRITER.REQUEST.REQUEST:1000 + index."""
        address = f"10.{self._number}.{asked // 250}.{asked % 250}:{1000 + index}"
        return json.dumps({"Op": 0, "Addr": address}).encode()


def _operation(key: bytes, value: bytes | None) -> rpc.RequestOp:
    if value is None:
        return rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=key))
    return rpc.RequestOp(request_put=rpc.PutRequest(key=key, value=value))


class Truth:
    """A bare watch of ``prefix`` from the first revision, on a member that nobody disturbs."""

    def __init__(self, member: str, prefix: bytes) -> None:
        self._channel = grpc.insecure_channel(member)
        self._done = threading.Event()
        self._create = rpc.WatchRequest(
            create_request=rpc.WatchCreateRequest(
                key=prefix, range_end=methods.prefix_end(prefix), start_revision=1
            )
        )
        self.events: list[Entry] = []
        self.broken = ""
        watch = self._channel.stream_stream(
            methods.WATCH.path, methods.WATCH.serialize, methods.WATCH.deserialize
        )
        self._responses: Any = watch(self._requests())
        next(self._responses)  # "created"
        self._reader = threading.Thread(target=self._read, name="truth")
        self._reader.start()

    @property
    def revision(self) -> int:
        """The revision of the last event."""
        return self.events[-1].revision if self.events else 0

    def _requests(self) -> Iterator[rpc.WatchRequest]:
        yield self._create
        self._done.wait()

    def _read(self) -> None:
        try:
            for response in self._responses:
                if response.canceled:
                    self.broken = response.cancel_reason or "cancelled"
                for event in response.events:
                    gone = event.type == rpc.Event.DELETE
                    kv = event.kv
                    self.events.append(Entry(kv.key, None if gone else kv.value, kv.mod_revision))
        except grpc.RpcError as error:
            if not self._done.is_set():
                self.broken = str(error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        self._responses.cancel()
        self._reader.join()
        self._channel.close()


class Recorder:
    """A sink of the session's watcher that notes what it is given; times are of time.monotonic."""

    def __init__(self) -> None:
        self.seen: list[Listed | Told] = []
        self.breaks = 0  # how often it was told that etcd cannot be followed
        self.broke_at = 0.0
        self.listed_at = 0.0
        self.followed_at = 0.0

    @property
    def revision(self) -> int:
        return self.seen[-1].revision if self.seen else 0

    def replace(self, entries: Sequence[Entry], revision: int) -> None:
        self.listed_at = time.monotonic()
        self.seen.append(Listed(tuple(entries), revision))

    def apply(self, entries: Sequence[Entry], revision: int) -> None:
        self.seen.append(Told(tuple(entries), revision))

    def followed(self, yes: bool, why: str) -> None:
        if yes:
            self.followed_at = time.monotonic()
        else:
            self.breaks += 1
            self.broke_at = time.monotonic()


class Watcher:
    """A session of its own that follows ``service`` twice: bare, and as a channel does.

    Args:
        endpoints: etcd's members; their order makes the session one of its own.
        service: What to follow.

    Attributes:
        bare: Everything that the session's watcher told, with revisions.
        view: The addresses by key, folded from the changes that a subscriber was told.
        sizes: How many endpoints ``view`` and the resolver's own snapshot had after every change.
    """

    @classmethod
    def of(cls, config: EtcdConfig, service: str) -> Self:
        """One that shares the session of ``config``."""
        return cls(config.endpoints, service, config)

    def __init__(
        self, endpoints: Sequence[str], service: str, config: EtcdConfig | None = None
    ) -> None:
        self._control = plane.acquire(config or EtcdConfig(endpoints=tuple(endpoints)))
        self._service = service
        self.bare = Recorder()
        self.resolver: Resolver | None = None  # until we know it
        self.view: dict[str, str] = {}
        self.sizes: list[int] = []
        session = self._control.session
        self._subscription = Subscription(session.loop, self._changed)
        self.resolver = session.run(
            lambda subscription: self._control.subscribe(service, subscription), self._subscription
        )
        prefix = f"{service}/".encode()
        self._handle = session.run(lambda sink: session.watcher.add(prefix, sink), self.bare)

    @property
    def member(self) -> str:
        """``host:port`` of the etcd member that it follows."""
        return self._control.session.transport.member

    def _changed(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if isinstance(change, Put):
                self.view[change.key] = change.endpoint.address
            else:
                del self.view[change.key]
        self.sizes.append(len(self.view))
        if self.resolver is not None:
            self.sizes.append(len(self.resolver.snapshot().endpoints))

    def close(self) -> None:
        session = self._control.session
        session.run(session.watcher.remove, self._handle)
        session.run(lambda s: self._control.unsubscribe(self._service, s), self._subscription)
        self._control.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


@contextlib.contextmanager
def channels_to(members: Sequence[str]) -> Iterator[list[grpc.Channel]]:
    """A plain channel to each member, without retries of gRPC's own."""
    options = (("grpc.enable_retries", 0), ("grpc.max_reconnect_backoff_ms", 500))
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(grpc.insecure_channel(m, options)) for m in members]
