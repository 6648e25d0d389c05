"""gRPC service registration, discovery and client-side load balancing on etcd.

A server registers itself::

    with etcd_grpc.register("helloworld.Greeter", port=port):
        server.wait_for_termination()

A client changes one line, and its stubs balance over all instances::

    with etcd_grpc.insecure_channel("etcd:///helloworld.Greeter") as channel:
        GreeterStub(channel).SayHello(request, timeout=1)

``etcd_grpc.aio`` is the same for asyncio; ``etcd_grpc.telemetry.events`` is what ``listen`` tells of.
"""

from etcd_grpc import aio
from etcd_grpc._version import __version__
from etcd_grpc.channel.sync.channel import Channel, insecure_channel, secure_channel
from etcd_grpc.config import EtcdConfig
from etcd_grpc.errors import (
    AuthenticationError,
    ConfigurationError,
    DuplicateInstanceError,
    EtcdError,
    EtcdGrpcError,
    EtcdUnavailableError,
    MissingExtraError,
    StoredDataError,
)
from etcd_grpc.model import Endpoint, Instance, Snapshot, Status
from etcd_grpc.registration import Registration, register
from etcd_grpc.server.sync import Lifecycle, serve
from etcd_grpc.telemetry import Event, Listener, listen

__all__ = [
    "AuthenticationError",
    "Channel",
    "ConfigurationError",
    "DuplicateInstanceError",
    "Endpoint",
    "EtcdConfig",
    "EtcdError",
    "EtcdGrpcError",
    "EtcdUnavailableError",
    "Event",
    "Instance",
    "Lifecycle",
    "Listener",
    "MissingExtraError",
    "Registration",
    "Snapshot",
    "Status",
    "StoredDataError",
    "__version__",
    "aio",
    "insecure_channel",
    "listen",
    "register",
    "secure_channel",
    "serve",
]
