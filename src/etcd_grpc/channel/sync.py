"""The synchronous balanced channel: a ``grpc.Channel``."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc

from etcd_grpc.channel.dispatch import Dispatcher, delay_after, left_until
from etcd_grpc.channel.spec import ChannelSpec, Options
from etcd_grpc.channel.subchannel import Subchannel
from etcd_grpc.channel.sync_calls import (
    PendingCall,
    SyncSubchannel,
    track,
    wait_for_endpoint,
)
from etcd_grpc.channel.watchers import StateWatchers
from etcd_grpc.config import EtcdArgument

__all__ = ["Channel", "insecure_channel", "secure_channel"]

T = TypeVar("T")

Metadata = Any  # whatever a plain channel takes
Serializer = Callable[[Any], bytes] | None
Deserializer = Callable[[bytes], Any] | None
Make = Callable[[Any], Any]  # of a grpc.Channel, whose stubs lack _registered_method


def insecure_channel(
    target: str,
    options: Options | None = None,
    compression: grpc.Compression | None = None,
    *,
    etcd: EtcdArgument = None,
    policy: str | None = None,
    service_config: str | Mapping[str, Any] | None = None,
) -> Channel:
    """A plaintext channel that balances over the instances of a service.

    Args:
        target: ``etcd:///SERVICE``.
        options: gRPC's channel options, for each real channel.
        compression: The default compression of calls.
        etcd: An ``EtcdConfig``, or etcd's endpoints as a string ("host:port,...") or a list; None
            reads the environment, as ``etcdctl`` does.
        policy: The balancing policy's name; None takes the service config's, else ``round_robin``.
        service_config: gRPC's service config, as JSON text or an object; None takes the
            ``grpc.service_config`` option.

    Returns:
        A ``grpc.Channel``.  It begins to look for instances with its first call.

    Raises:
        ConfigurationError: An argument is wrong.
    """
    spec = ChannelSpec.make(
        target, options, compression, None, etcd=etcd, policy=policy, service_config=service_config
    )
    return Channel(spec)


def secure_channel(
    target: str,
    credentials: grpc.ChannelCredentials,
    options: Options | None = None,
    compression: grpc.Compression | None = None,
    *,
    etcd: EtcdArgument = None,
    policy: str | None = None,
    service_config: str | Mapping[str, Any] | None = None,
) -> Channel:
    """As ``insecure_channel``, with ``credentials`` for the connections to the instances."""
    spec = ChannelSpec.make(
        target,
        options,
        compression,
        credentials,
        etcd=etcd,
        policy=policy,
        service_config=service_config,
    )
    return Channel(spec)


class _Connector:
    """Makes plain synchronous channels."""

    def __init__(self, spec: ChannelSpec) -> None:
        self._spec = spec

    def connect(self, address: str) -> grpc.Channel:
        spec = self._spec
        if spec.credentials is None:
            return grpc.insecure_channel(address, spec.options, spec.compression)
        return grpc.secure_channel(address, spec.credentials, spec.options, spec.compression)

    def close(self, channel: grpc.Channel) -> None:
        channel.close()


class Channel(grpc.Channel):
    """A ``grpc.Channel`` over all connected instances of a service."""

    def __init__(self, spec: ChannelSpec) -> None:
        self._watchers = StateWatchers()
        self._dispatcher: Dispatcher[grpc.Channel] = Dispatcher(
            spec, _Connector(spec), self._watchers.changed
        )

    def unary_unary(
        self,
        method: str,
        request_serializer: Serializer = None,
        response_deserializer: Deserializer = None,
        _registered_method: bool | None = False,
    ) -> UnaryUnaryMultiCallable:
        return UnaryUnaryMultiCallable(
            self,
            method,
            lambda channel: channel.unary_unary(
                method, request_serializer, response_deserializer, _registered_method
            ),
        )

    def unary_stream(
        self,
        method: str,
        request_serializer: Serializer = None,
        response_deserializer: Deserializer = None,
        _registered_method: bool | None = False,
    ) -> UnaryStreamMultiCallable:
        return UnaryStreamMultiCallable(
            self,
            method,
            lambda channel: channel.unary_stream(
                method, request_serializer, response_deserializer, _registered_method
            ),
        )

    def stream_unary(
        self,
        method: str,
        request_serializer: Serializer = None,
        response_deserializer: Deserializer = None,
        _registered_method: bool | None = False,
    ) -> StreamUnaryMultiCallable:
        return StreamUnaryMultiCallable(
            self,
            method,
            lambda channel: channel.stream_unary(
                method, request_serializer, response_deserializer, _registered_method
            ),
        )

    def stream_stream(
        self,
        method: str,
        request_serializer: Serializer = None,
        response_deserializer: Deserializer = None,
        _registered_method: bool | None = False,
    ) -> StreamStreamMultiCallable:
        return StreamStreamMultiCallable(
            self,
            method,
            lambda channel: channel.stream_stream(
                method, request_serializer, response_deserializer, _registered_method
            ),
        )

    def subscribe(
        self,
        callback: Callable[[grpc.ChannelConnectivity], None],
        try_to_connect: bool | None = False,
    ) -> None:
        """Call ``callback`` with the aggregate state, now and at every change, on a thread."""
        if try_to_connect:
            self._dispatcher.start()
        self._watchers.add(callback, self._dispatcher.state)

    def unsubscribe(self, callback: Callable[[grpc.ChannelConnectivity], None]) -> None:
        self._watchers.remove(callback)

    def close(self) -> None:
        """End all calls and connections.  Blocks until the channel's threads have ended."""
        running = self._dispatcher.shut()
        if running is None:
            return
        if self._dispatcher.on_control_thread():  # a garbage collection found an unclosed channel
            self._dispatcher.finish(running)
        else:
            running.plane.session.run(self._dispatcher.finish, running)
        running.plane.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        dispatcher = getattr(self, "_dispatcher", None)  # absent if the constructor failed
        if dispatcher is not None and dispatcher.started:
            self.close()
            warnings.warn(
                f"channel {dispatcher.spec.target} was not closed; use it as a context manager, "
                "or call close()",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )


class _MultiCallable:
    """One method, on whichever endpoint is picked.

    It holds the real channels' own multi-callables, made when an endpoint is first used by it and
    forgotten when the endpoint has left; and the channel, which must live as long as a stub does.
    """

    __slots__ = ("_channel", "_config", "_dispatcher", "_inner", "_make", "_throttle")

    def __init__(self, channel: Channel, method: str, make: Make) -> None:
        dispatcher = channel._dispatcher
        self._channel = channel
        self._dispatcher = dispatcher
        self._throttle = dispatcher.throttle
        self._config = dispatcher.spec.service_config.method(method)
        self._make = make
        self._inner: dict[SyncSubchannel, Any] = {}

    def _bind(self, subchannel: SyncSubchannel) -> Any:
        """The real multi-callable of ``subchannel``."""
        inner = self._inner.get(subchannel)
        if inner is None:
            for old in [known for known in self._inner.copy() if known.closed]:
                self._inner.pop(old, None)
            inner = self._inner[subchannel] = self._make(subchannel.channel)
        return inner

    def _defaults(
        self, timeout: float | None, wait_for_ready: bool | None
    ) -> tuple[float | None, bool]:
        """Deadline (time.monotonic) and waiting, with what the service config says."""
        config = self._config
        if config.timeout_s is not None:
            timeout = config.timeout_s if timeout is None else min(timeout, config.timeout_s)
        waits = config.wait_for_ready if wait_for_ready is None else wait_for_ready
        return None if timeout is None else time.monotonic() + timeout, bool(waits)

    def _ready(self) -> Subchannel[grpc.Channel] | None:
        """A connected endpoint if there is one; else the search is on.

        Raises:
            ValueError: The channel is closed.
        """
        subchannel = self._dispatcher.pick()
        if subchannel is None:
            if self._dispatcher.closed:
                raise ValueError("Cannot invoke RPC on closed channel!")
            self._dispatcher.start()
        return subchannel

    def _stream(
        self,
        start: Callable[[SyncSubchannel, float | None], Any],
        timeout: float | None,
        waits: bool | None,
    ) -> Any:
        """Start a call that is sent once: on a connected endpoint at once, else when there is one."""
        subchannel = self._ready()
        deadline, wait_for_ready = self._defaults(timeout, waits)
        if subchannel is not None:
            try:
                call = start(subchannel, left_until(deadline))
            except ValueError:
                if not subchannel.closed:
                    raise
            else:
                track(subchannel, call)
                return call
        return PendingCall(
            self._dispatcher,
            start,
            deadline=deadline,
            wait_for_ready=wait_for_ready,
            attempts=None,
        ).begin()


class UnaryUnaryMultiCallable(_MultiCallable, grpc.UnaryUnaryMultiCallable):  # type: ignore[type-arg]
    """One request, one response; may be sent again to another endpoint."""

    __slots__ = ()

    def __call__(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Metadata = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        subchannel = self._dispatcher.pick()
        if subchannel is None or self._config.timeout_s is not None:
            return self._persist(
                lambda inner, left: inner(request, left, metadata, credentials, None, compression),
                timeout,
                wait_for_ready,
            )
        # The same as _persist's first attempt, without its bookkeeping.
        started = time.monotonic()
        in_flight = subchannel.in_flight
        in_flight.append(None)
        try:
            inner = self._inner.get(subchannel) or self._bind(subchannel)
            response = inner(request, timeout, metadata, credentials, None, compression)
        except (grpc.RpcError, ValueError) as error:
            failure = error
        else:
            if self._throttle is not None:
                self._throttle.succeeded()
            return response
        finally:
            in_flight.pop()
        return self._persist(
            lambda inner, left: inner(request, left, metadata, credentials, None, compression),
            None if timeout is None else timeout - (time.monotonic() - started),
            wait_for_ready,
            subchannel,
            failure,
        )

    def with_call(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Metadata = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> tuple[Any, grpc.Call]:
        result: tuple[Any, grpc.Call] = self._persist(
            lambda inner, left: inner.with_call(
                request, left, metadata, credentials, None, compression
            ),
            timeout,
            wait_for_ready,
        )
        return result

    def future(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Metadata = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        def start(subchannel: SyncSubchannel, left: float | None) -> Any:
            inner = self._bind(subchannel)
            return inner.future(request, left, metadata, credentials, None, compression)

        self._ready()
        deadline, waits = self._defaults(timeout, wait_for_ready)
        attempts = self._dispatcher.attempts(self._config.retry)
        return PendingCall(
            self._dispatcher, start, deadline=deadline, wait_for_ready=waits, attempts=attempts
        ).begin()

    def _persist(
        self,
        attempt: Callable[[Any, float | None], T],
        timeout: float | None,
        wait_for_ready: bool | None,
        subchannel: SyncSubchannel | None = None,
        failure: grpc.RpcError | ValueError | None = None,
    ) -> T:
        """Attempt until there is an answer, a final failure or no endpoint; blocks meanwhile.

        Raises:
            grpc.RpcError: The final failure.
            ValueError: The channel is closed.
        """
        deadline, waits = self._defaults(timeout, wait_for_ready)
        attempts = self._dispatcher.attempts(self._config.retry)
        tried: set[SyncSubchannel] = set()
        while True:
            if subchannel is not None and failure is not None:
                delay = delay_after(failure, attempts, subchannel, deadline)
                if delay is None:
                    raise failure
                tried.add(subchannel)
                time.sleep(delay)
            subchannel = self._dispatcher.pick(tried)
            if subchannel is None:
                self._ready()
                subchannel = wait_for_endpoint(self._dispatcher, deadline, waits)
            subchannel.in_flight.append(None)
            try:
                response = attempt(self._bind(subchannel), left_until(deadline))
            except (grpc.RpcError, ValueError) as error:
                failure = error
            else:
                if self._throttle is not None:
                    self._throttle.succeeded()
                return response
            finally:
                subchannel.in_flight.pop()


class UnaryStreamMultiCallable(_MultiCallable, grpc.UnaryStreamMultiCallable):  # type: ignore[type-arg]
    """One request, many responses."""

    __slots__ = ()

    def __call__(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Metadata = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        return self._stream(
            lambda subchannel, left: self._bind(subchannel)(
                request, left, metadata, credentials, None, compression
            ),
            timeout,
            wait_for_ready,
        )


class StreamUnaryMultiCallable(_MultiCallable, grpc.StreamUnaryMultiCallable):  # type: ignore[type-arg]
    """Many requests, one response."""

    __slots__ = ()

    def __call__(
        self,
        request_iterator: Iterator[Any],
        timeout: float | None = None,
        metadata: Metadata = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        response, _ = self.with_call(
            request_iterator, timeout, metadata, credentials, wait_for_ready, compression
        )
        return response

    def with_call(
        self,
        request_iterator: Iterator[Any],
        timeout: float | None = None,
        metadata: Metadata = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> tuple[Any, grpc.Call]:
        deadline, waits = self._defaults(timeout, wait_for_ready)
        subchannel = self._ready() or wait_for_endpoint(self._dispatcher, deadline, waits)
        subchannel.in_flight.append(None)
        try:
            result: tuple[Any, grpc.Call] = self._bind(subchannel).with_call(
                request_iterator, left_until(deadline), metadata, credentials, None, compression
            )
        finally:
            subchannel.in_flight.pop()
        return result

    def future(
        self,
        request_iterator: Iterator[Any],
        timeout: float | None = None,
        metadata: Metadata = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        return self._stream(
            lambda subchannel, left: self._bind(subchannel).future(
                request_iterator, left, metadata, credentials, None, compression
            ),
            timeout,
            wait_for_ready,
        )


class StreamStreamMultiCallable(_MultiCallable, grpc.StreamStreamMultiCallable):  # type: ignore[type-arg]
    """Many requests, many responses."""

    __slots__ = ()

    def __call__(
        self,
        request_iterator: Iterator[Any],
        timeout: float | None = None,
        metadata: Metadata = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        return self._stream(
            lambda subchannel, left: self._bind(subchannel)(
                request_iterator, left, metadata, credentials, None, compression
            ),
            timeout,
            wait_for_ready,
        )
