"""The asyncio balanced channel: a ``grpc.aio.Channel``.

Its subchannels live on the application's event loop.  What etcd says arrives there from the session's
own thread, so a loop that is blocked for a while misses nothing.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Coroutine, Mapping
from types import TracebackType
from typing import Any, Self

import grpc

from etcd_grpc.balancer.explain import Explanation
from etcd_grpc.balancer.policies import PolicyArgument
from etcd_grpc.channel.aio.interceptors import InterceptorChains, Interceptors
from etcd_grpc.channel.aio.methods import (
    StreamStreamMultiCallable,
    StreamUnaryMultiCallable,
    UnaryStreamMultiCallable,
    UnaryUnaryMultiCallable,
)
from etcd_grpc.channel.connectivity import made_alone
from etcd_grpc.channel.dispatch import Dispatcher
from etcd_grpc.channel.identity_check import ASK_TIMEOUT_S, Answer, answer_of
from etcd_grpc.channel.security import Security
from etcd_grpc.channel.spec import ChannelSpec, Options
from etcd_grpc.channel.unclosed import end_unclosed
from etcd_grpc.channel.ways import Way
from etcd_grpc.config import EtcdArgument
from etcd_grpc.etcd.beside import in_thread
from etcd_grpc.identity import CHECK
from etcd_grpc.tls.channel import ChannelTls

__all__ = ["Channel", "insecure_channel", "secure_channel"]

Serializer = Callable[[Any], bytes] | None
Deserializer = Callable[[bytes], Any] | None


def insecure_channel(
    target: str,
    options: Options | None = None,
    compression: grpc.Compression | None = None,
    interceptors: Interceptors | None = None,
    *,
    etcd: EtcdArgument = None,
    policy: PolicyArgument | None = None,
    service_config: str | Mapping[str, Any] | None = None,
) -> Channel:
    """A plaintext asyncio channel that balances over the instances of a service.

    Args:
        target: ``etcd:///SERVICE``.
        options: gRPC's channel options, for each real channel.
        compression: The default compression of calls.
        interceptors: As for ``grpc.aio.insecure_channel``: once for each call, around its retries.
        etcd: An ``EtcdConfig``, or etcd's endpoints as a string ("host:port,...") or a list; None
            reads the environment, as ``etcdctl`` does.
        policy: The balancing policy's name; None takes the service config's, else ``round_robin``.
        service_config: gRPC's service config, as JSON text or an object; None takes the
            ``grpc.service_config`` option.

    Returns:
        A ``grpc.aio.Channel``.  It begins to look for instances with its first call, and belongs to
        the event loop on which that is made.

    Raises:
        ConfigurationError: An argument is wrong.
    """
    spec = ChannelSpec.make(
        target, options, compression, None, etcd=etcd, policy=policy, service_config=service_config
    )
    return Channel(spec, interceptors)


def secure_channel(
    target: str,
    credentials: grpc.ChannelCredentials | ChannelTls,
    options: Options | None = None,
    compression: grpc.Compression | None = None,
    interceptors: Interceptors | None = None,
    *,
    etcd: EtcdArgument = None,
    policy: PolicyArgument | None = None,
    service_config: str | Mapping[str, Any] | None = None,
) -> Channel:
    """As ``insecure_channel``, with TLS to the instances: see ``etcd_grpc.secure_channel``."""
    spec = ChannelSpec.make(
        target,
        options,
        compression,
        credentials,
        etcd=etcd,
        policy=policy,
        service_config=service_config,
    )
    return Channel(spec, interceptors)


class _Connector:
    """Makes plain asyncio channels."""

    def __init__(self, spec: ChannelSpec, security: Security) -> None:
        self._compression = spec.compression
        self._security = security
        self.grace: float | None = None
        self.tasks: set[asyncio.Task[None]] = set()

    def connect(self, address: str, way: Way) -> grpc.aio.Channel:
        options, credentials = self._security.options(way), self._security.credentials
        if credentials is None:
            return grpc.aio.insecure_channel(address, options, self._compression)
        return made_alone(grpc.aio.secure_channel, address, credentials, options, self._compression)

    def ask(self, channel: grpc.aio.Channel, answered: Callable[[Answer], None]) -> None:
        check: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(CHECK)
        try:
            call = check(b"", timeout=ASK_TIMEOUT_S)
        except grpc.aio.UsageError as error:
            raise ValueError(str(error)) from error

        async def tell() -> None:
            code, details = await call.code(), await call.details()
            answered(answer_of(code, details, await call.initial_metadata()))

        self._run(tell())

    def close(self, channel: grpc.aio.Channel) -> None:
        self._run(channel.close(self.grace))

    def _run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


class Channel(grpc.aio.Channel):
    """A ``grpc.aio.Channel`` over all connected instances of a service."""

    def __init__(self, spec: ChannelSpec, interceptors: Interceptors | None = None) -> None:
        security = Security(spec)
        self._connector = _Connector(spec, security)
        self._interceptors = InterceptorChains(interceptors)
        # Calls that interceptors may still hold; the others are known to the real channels.
        self._intercepted: weakref.WeakSet[Any] = weakref.WeakSet()
        self._state_changes = _StateChanges()
        self._dispatcher: Dispatcher[grpc.aio.Channel] = Dispatcher(
            spec, security, self._connector, self._state_changes.changed
        )

    @property
    def _loop(self) -> asyncio.AbstractEventLoop:
        """Other libraries read this of a plain channel."""
        return self._dispatcher.loop or asyncio.get_event_loop()

    def _method(self, kind: Callable[..., Any], shape: str, method: str, *others: Any) -> Any:
        """A multi-callable; ``others`` are the channel function's arguments after the method."""

        def make(path: str) -> Any:
            return kind(self, self._dispatcher, shape, path, *others)

        return self._interceptors.around(shape, method, make, self._track)

    def _track(self, call: Any) -> None:
        self._intercepted.add(call)
        call.add_done_callback(self._intercepted.discard)

    def unary_unary(
        self,
        method: str,
        request_serializer: Serializer = None,
        response_deserializer: Deserializer = None,
        _registered_method: bool | None = False,
    ) -> grpc.aio.UnaryUnaryMultiCallable[Any, Any]:
        made: grpc.aio.UnaryUnaryMultiCallable[Any, Any] = self._method(
            UnaryUnaryMultiCallable,
            "unary_unary",
            method,
            request_serializer,
            response_deserializer,
            _registered_method,
        )
        return made

    def unary_stream(
        self,
        method: str,
        request_serializer: Serializer = None,
        response_deserializer: Deserializer = None,
        _registered_method: bool | None = False,
    ) -> grpc.aio.UnaryStreamMultiCallable[Any, Any]:
        made: grpc.aio.UnaryStreamMultiCallable[Any, Any] = self._method(
            UnaryStreamMultiCallable,
            "unary_stream",
            method,
            request_serializer,
            response_deserializer,
            _registered_method,
        )
        return made

    def stream_unary(
        self,
        method: str,
        request_serializer: Serializer = None,
        response_deserializer: Deserializer = None,
        _registered_method: bool | None = False,
    ) -> grpc.aio.StreamUnaryMultiCallable[Any, Any]:
        made: grpc.aio.StreamUnaryMultiCallable[Any, Any] = self._method(
            StreamUnaryMultiCallable,
            "stream_unary",
            method,
            request_serializer,
            response_deserializer,
            _registered_method,
        )
        return made

    def stream_stream(
        self,
        method: str,
        request_serializer: Serializer = None,
        response_deserializer: Deserializer = None,
        _registered_method: bool | None = False,
    ) -> grpc.aio.StreamStreamMultiCallable[Any, Any]:
        made: grpc.aio.StreamStreamMultiCallable[Any, Any] = self._method(
            StreamStreamMultiCallable,
            "stream_stream",
            method,
            request_serializer,
            response_deserializer,
            _registered_method,
        )
        return made

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """The aggregate state, by gRPC's rule for ``round_robin``."""
        if try_to_connect:
            self._dispatcher.start(asyncio.get_running_loop())
        return self._dispatcher.state

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        while self._dispatcher.state is last_observed_state:
            await self._state_changes.next()

    async def channel_ready(self) -> None:
        while (state := self.get_state(try_to_connect=True)) is not grpc.ChannelConnectivity.READY:
            if self._dispatcher.closed:
                raise grpc.aio.UsageError("Channel is closed.")
            await self.wait_for_state_change(state)

    def explain(self) -> Explanation | None:
        """As the synchronous channel's ``explain``."""
        return self._dispatcher.explain()

    async def close(self, grace: float | None = None) -> None:
        """End all connections; calls under way get ``grace`` seconds, None cancels them at once.

        Raises:
            ValueError: ``grace`` is negative.
        """
        if grace and grace < 0:
            raise ValueError(f"grace must be non-negative, got {grace}.")
        running = self._dispatcher.shut()
        if not grace:
            self._cancel_intercepted()
        if running is None:
            self._state_changes.changed(self._dispatcher.state)
            return
        self._connector.grace = grace
        self._dispatcher.finish(running)
        await asyncio.gather(*self._connector.tasks)
        self._cancel_intercepted()
        await in_thread(running.plane.release)

    def _cancel_intercepted(self) -> None:
        for call in tuple(self._intercepted):
            call.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def __del__(self) -> None:
        dispatcher = getattr(self, "_dispatcher", None)  # absent if the constructor failed
        if dispatcher is not None:
            end_unclosed(self, dispatcher, "use it as an async context manager, or await close()")


class _StateChanges:
    """Wakes those who wait for the next change of a channel's state."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []

    def changed(self, state: grpc.ChannelConnectivity) -> None:
        del state
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def next(self) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        await future
