"""The synchronous balanced channel: a ``grpc.Channel``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

import grpc

from etcd_grpc.balancer.explain import Explanation
from etcd_grpc.balancer.policies import PolicyArgument
from etcd_grpc.channel.connectivity import made_alone
from etcd_grpc.channel.dispatch import Dispatcher
from etcd_grpc.channel.identity_check import ASK_TIMEOUT_S, Answer, answer_of
from etcd_grpc.channel.security import Security
from etcd_grpc.channel.spec import ChannelSpec, Options
from etcd_grpc.channel.sync.methods import (
    StreamStreamMultiCallable,
    StreamUnaryMultiCallable,
    UnaryStreamMultiCallable,
)
from etcd_grpc.channel.sync.unary import UnaryUnaryMultiCallable
from etcd_grpc.channel.unclosed import end_unclosed
from etcd_grpc.channel.watchers import StateWatchers
from etcd_grpc.channel.ways import Way
from etcd_grpc.config import EtcdArgument
from etcd_grpc.identity import CHECK
from etcd_grpc.tls.channel import ChannelTls

__all__ = ["Channel", "insecure_channel", "secure_channel"]

Serializer = Callable[[Any], bytes] | None
Deserializer = Callable[[bytes], Any] | None


def insecure_channel(
    target: str,
    options: Options | None = None,
    compression: grpc.Compression | None = None,
    *,
    etcd: EtcdArgument = None,
    policy: PolicyArgument | None = None,
    service_config: str | Mapping[str, Any] | None = None,
) -> Channel:
    """A plaintext channel that balances over the instances of a service.

    Args:
        target: ``etcd:///SERVICE``.
        options: gRPC's channel options, for each real channel.
        compression: The default compression of calls.
        etcd: An ``EtcdConfig``, or etcd's endpoints as a string ("host:port,...") or a list; None
            reads the environment, as ``etcdctl`` does.
        policy: The balancing policy: its name, or what gRPC's ``loadBalancingConfig`` says for it
            (docs/balancing.md); None takes the service config's, else ``round_robin``.
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
    credentials: grpc.ChannelCredentials | ChannelTls,
    options: Options | None = None,
    compression: grpc.Compression | None = None,
    *,
    etcd: EtcdArgument = None,
    policy: PolicyArgument | None = None,
    service_config: str | Mapping[str, Any] | None = None,
) -> Channel:
    """As ``insecure_channel``, with TLS to the instances.

    An instance's certificate must be for the service's name, or for its address; docs/tls.md says more.

    Args:
        credentials: gRPC's own; or ``etcd_grpc.tls.ChannelTls``, whose files are followed.
    """
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

    def __init__(self, spec: ChannelSpec, security: Security) -> None:
        self._compression = spec.compression
        self._security = security

    def connect(self, address: str, way: Way) -> grpc.Channel:
        options, credentials = self._security.options(way), self._security.credentials
        if credentials is None:
            return grpc.insecure_channel(address, options, self._compression)
        return made_alone(grpc.secure_channel, address, credentials, options, self._compression)

    def ask(self, channel: grpc.Channel, answered: Callable[[Answer], None]) -> None:
        def done(call: Any) -> None:
            answered(answer_of(call.code(), call.details(), call.initial_metadata()))

        check: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(CHECK)
        check.future(b"", timeout=ASK_TIMEOUT_S).add_done_callback(done)

    def close(self, channel: grpc.Channel) -> None:
        channel.close()


class Channel(grpc.Channel):
    """A ``grpc.Channel`` over all connected instances of a service."""

    def __init__(self, spec: ChannelSpec) -> None:
        self._watchers = StateWatchers()
        security = Security(spec)
        self._dispatcher: Dispatcher[grpc.Channel] = Dispatcher(
            spec, security, _Connector(spec, security), self._watchers.changed
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
            self._dispatcher,
            "unary_unary",
            method,
            request_serializer,
            response_deserializer,
            _registered_method,
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
            self._dispatcher,
            "unary_stream",
            method,
            request_serializer,
            response_deserializer,
            _registered_method,
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
            self._dispatcher,
            "stream_unary",
            method,
            request_serializer,
            response_deserializer,
            _registered_method,
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
            self._dispatcher,
            "stream_stream",
            method,
            request_serializer,
            response_deserializer,
            _registered_method,
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

    def explain(self) -> Explanation | None:
        """Why calls go where they go: for each endpoint its state, load, ejection and share.

        Returns:
            Printable, and ``to_json()``; None before the channel was first used.
        """
        return self._dispatcher.explain()

    def close(self) -> None:
        """End all calls and connections.  Blocks until the channel's threads have ended."""
        self._watchers.clear()
        running = self._dispatcher.shut()
        if running is None:
            return
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
        if dispatcher is not None:
            end_unclosed(self, dispatcher, "use it as a context manager, or call close()")
