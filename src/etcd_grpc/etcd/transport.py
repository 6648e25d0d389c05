"""The members of one etcd cluster: one gRPC channel each, and which of them we talk to.

Why not one channel with all addresses: pick_first stays with a member that is connected but useless,
whatever its answers are, and TLS would need a name override.  So every member has a channel, one of
them is *current*, and whoever sees it fail rotates to the next.

Every request made through here is safe to repeat: reads, lease operations, and writes guarded by a
transaction's compare.

One authentication serves the whole session: whoever finds the token missing asks for one while the
others wait, and a refusal counts for all of them until its backoff is over.  etcd hashes the password
each time, which costs it as much as a thousand reads.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import queue
import random
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import grpc
from google.protobuf.message import Message

from etcd_grpc.certificates import describe_peer
from etcd_grpc.config import EtcdConfig
from etcd_grpc.errors import (
    AuthenticationError,
    ConfigurationError,
    EtcdError,
    EtcdUnavailableError,
)
from etcd_grpc.etcd import methods, rpc_pb2
from etcd_grpc.etcd.backoff import Backoff
from etcd_grpc.etcd.beside import in_thread
from etcd_grpc.etcd.connections import Connection, Connections
from etcd_grpc.etcd.failure import StaleTokenError, is_certificate_refused, translate
from etcd_grpc.etcd.methods import Method
from etcd_grpc.model import split_address
from etcd_grpc.posting import post
from etcd_grpc.telemetry import emit, events

__all__ = ["Stream", "Transport"]

Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)
T = TypeVar("T")

# A member that takes longer than this is left for the next one.
ATTEMPT_S = 2.0
# A member that answers nothing within this, whatever it is asked, is not alive.
_ALIVE_S = 1.5
# Any answer is a sign of life, also "unimplemented"; these are none.
_NO_ANSWER = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
    }
)


class Transport:
    """Requests and streams to etcd.  Used on one event loop only; closed by ``close``.

    Args:
        config: Where etcd is.
        loop: The loop on which answers arrive.
        rng: Chooses the first member, so that many processes spread over the cluster.

    Raises:
        ConfigurationError: A certificate file cannot be read.
    """

    def __init__(self, config: EtcdConfig, loop: asyncio.AbstractEventLoop, rng: random.Random) -> None:
        self._config = config
        self._loop = loop
        self._rng = rng
        self._connections = Connections(config, loop)
        self._current = rng.randrange(len(config.addresses))
        self._token = ""
        self._authenticating = asyncio.Lock()  # one attempt at a time
        self._refusal = ""  # why the last attempt was refused ...
        self._refused_until = 0.0  # ... and until when nobody tries again
        self._refusals = Backoff(rng, initial_s=1.0, max_s=1.5, free=0)
        self._described: dict[str, str] = {}  # certificates that were refused, by member
        self.last_error = ""
        # Told of a member that did not answer a request.
        self.on_silence: Callable[[str], None] = lambda _member: None

    @property
    def member(self) -> str:
        """``host:port`` of the member that we talk to."""
        return self._config.addresses[self._current]

    @property
    def user(self) -> str:
        """As whom we authenticate; "" without authentication."""
        return self._config.user

    @property
    def members(self) -> tuple[str, ...]:
        """``host:port`` of every member."""
        return self._config.addresses

    def rotate(self, away_from: str) -> None:
        """Talk to the next member, unless another caller has already moved on."""
        if self.member == away_from:
            self._current = (self._current + 1) % len(self.members)

    def spread(self) -> bool:
        """Talk to a member chosen at random; return whether it is another one."""
        before = self._current
        self._current = self._rng.randrange(len(self.members))
        return self._current != before

    async def call(
        self,
        method: Method[Q, R],
        request: Q,
        *,
        timeout_s: float = 5.0,
        attempt_s: float = ATTEMPT_S,
    ) -> R:
        """Send ``request``; a member that takes longer than ``attempt_s`` is left for the next.

        Raises:
            EtcdUnavailableError: No member answered within ``timeout_s``.
            AuthenticationError: The credentials or the permission were refused.
            EtcdError: etcd answered with another error.
        """
        deadline = self._loop.time() + timeout_s
        for _ in self.members:
            member = self.member
            left = deadline - self._loop.time()
            try:
                answer = await self._authenticated(
                    method, request, member, max(0.05, min(left, attempt_s))
                )
            except EtcdUnavailableError as error:
                self.last_error = str(error)
                self.rotate(member)
                self.on_silence(member)
                if self._loop.time() >= deadline:
                    break
            else:
                self.last_error = ""
                return answer
        raise EtcdUnavailableError(
            f"no etcd member answered; the last one: {self.last_error}. Is this where etcd is? "
            f"({', '.join(self.members)}: named by etcd=..., or by ETCDCTL_ENDPOINTS)"
        )

    async def stream(self, method: Method[Q, R]) -> Stream[Q, R]:
        """Open a bidirectional stream to the current member.

        Raises:
            EtcdError: The credentials were refused, or nobody could check them.
        """
        metadata = (("hasleader", "true"), *await self._token_metadata(self.member, ATTEMPT_S))
        connection = self._connections.to(self.member)
        return Stream(connection, self.member, method, metadata, self.user, self._loop)

    async def answers(self, member: str) -> bool:
        """Whether ``member`` answers anything at all within 1.5 s.

        It is asked the cheapest question, for gRPC's health: no permission, no consensus, no range.
        """
        check = methods.HEALTH_CHECK
        with self._connections.to(member) as connection:
            rpc = connection.channel.unary_unary(check.path, check.serialize, check.deserialize)
            call = rpc.future(b"", timeout=_ALIVE_S)
            await self._until_done(call)
        return call.code() not in _NO_ANSWER

    def forget_token(self) -> None:
        """The token was refused: authenticate again before the next request."""
        self._token = ""

    def close(self) -> None:
        """Close all channels; what is in flight ends as cancelled."""
        self._connections.close()

    async def _authenticated(
        self, method: Method[Q, R], request: Q, member: str, timeout_s: float
    ) -> R:
        """One attempt; if it fails because the token is stale, one more with a new token."""
        metadata = await self._token_metadata(member, timeout_s)
        try:
            return await self._attempt(method, request, member, timeout_s, metadata)
        except StaleTokenError:
            self.forget_token()
            metadata = await self._token_metadata(member, timeout_s)
            return await self._attempt(method, request, member, timeout_s, metadata)

    async def _token_metadata(self, member: str, timeout_s: float) -> tuple[tuple[str, str], ...]:
        if not self.user:
            return ()
        async with self._authenticating:
            if not self._token:
                self._token = await self._authenticate(member, timeout_s)
            return (("token", self._token),)

    async def _authenticate(self, member: str, timeout_s: float) -> str:
        if self._loop.time() < self._refused_until:
            raise AuthenticationError(self._refusal)
        user = self.user
        try:
            request = rpc_pb2.AuthenticateRequest(name=user, password=self._config.secret())
            answer = await self._attempt(methods.AUTHENTICATE, request, member, timeout_s, ())
        except (AuthenticationError, ConfigurationError) as error:
            self._refusal = str(error)
            self._refused_until = self._loop.time() + max(1.0, self._refusals.next_delay())
            emit(events.AuthenticationRefused(user, self._refusal))
            raise AuthenticationError(self._refusal) from None
        self._refusals.reset()
        return answer.token

    async def _attempt(
        self,
        method: Method[Q, R],
        request: Q,
        member: str,
        timeout_s: float,
        metadata: tuple[tuple[str, str], ...],
    ) -> R:
        with self._connections.to(member) as connection:
            rpc = connection.channel.unary_unary(method.path, method.serialize, method.deserialize)
            call = rpc.future(request, timeout=timeout_s, metadata=metadata)
            await self._until_done(call)
        try:
            answer: R = call.result()
        except grpc.RpcError as error:
            user = self.user
            failure = translate(error, method.path, member, user=user, request=request)
            if is_certificate_refused(failure):
                failure = EtcdUnavailableError(
                    f"{failure} {await self._certificate_of(member)}".strip()
                )
            raise failure from None
        except grpc.FutureCancelledError:
            raise EtcdUnavailableError(f"the session with etcd member {member} is closed") from None
        return answer

    async def _certificate_of(self, member: str) -> str:
        """What the member's certificate says, looked at once a session."""
        if member not in self._described:
            self._described[member] = ""
            host, port = split_address(member)
            look = functools.partial(describe_peer, host.strip("[]"), port, _ALIVE_S)
            facts = await in_thread(look, "etcd-grpc-certificate")
            self._described[member] = f"({facts})" if facts else ""
        return self._described[member]

    async def _until_done(self, call: Any) -> None:
        done: asyncio.Future[None] = self._loop.create_future()
        call.add_done_callback(lambda _: post(self._loop, _settle, done))
        try:
            await done
        except asyncio.CancelledError:
            call.cancel()
            raise


class Stream(Generic[Q, R]):
    """A bidirectional stream to one member, read by a thread of its own.

    The thread ("etcd-grpc-watch") ends with the stream; ``close`` ends the stream.
    """

    def __init__(
        self,
        connection: Connection,
        member: str,
        method: Method[Q, R],
        metadata: tuple[tuple[str, str], ...],
        user: str,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.member = member
        self._method = method
        self._user = user
        self._loop = loop
        self._requests: queue.SimpleQueue[Q | None] = queue.SimpleQueue()
        self._responses: asyncio.Queue[R | EtcdError] = asyncio.Queue()
        self._uses = contextlib.ExitStack()
        self._uses.enter_context(connection)
        rpc = connection.channel.stream_stream(method.path, method.serialize, method.deserialize)
        self._call = rpc(iter(self._requests.get, None), metadata=metadata)
        self._reader = threading.Thread(target=self._read, name="etcd-grpc-watch", daemon=True)
        self._reader.start()

    def send(self, request: Q) -> None:
        """Queue ``request``; it is lost if the stream has ended."""
        self._requests.put(request)

    async def receive(self) -> R:
        """The next response.

        Raises:
            EtcdError: The stream has ended; the error says why.
        """
        answer = await self._responses.get()
        if isinstance(answer, EtcdError):
            raise answer
        return answer

    def fail(self, error: EtcdError) -> None:
        """``receive`` raises ``error`` next: somebody has found out that nothing more will come."""
        self._responses.put_nowait(error)

    def close(self) -> None:
        """End the stream and its threads."""
        self._requests.put(None)  # releases the thread in which gRPC waits for requests
        self._call.cancel()
        self._reader.join(timeout=5)
        self._uses.close()

    def _read(self) -> None:
        error: EtcdError
        try:
            for response in self._call:
                post(self._loop, self._responses.put_nowait, response)
            error = EtcdUnavailableError(f"etcd member {self.member} ended the stream")
        except grpc.RpcError as failure:
            error = translate(failure, self._method.path, self.member, user=self._user)
        self._requests.put(None)
        post(self._loop, self._responses.put_nowait, error)


def _settle(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)
