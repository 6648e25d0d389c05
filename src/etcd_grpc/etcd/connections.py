"""The gRPC channels to the members of one etcd cluster, one each, and their certificates.

Certificates that are replaced on disk are used by every request and stream that begins afterwards.
What has begun before stays on its channel, which is closed after the last of them: a rotation ends no
watch.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

import grpc

from etcd_grpc.config import EtcdConfig
from etcd_grpc.posting import post
from etcd_grpc.tls.material import Material
from etcd_grpc.tls.watcher import Watched, watch

__all__ = ["Connection", "Connections", "credentials_of"]

# Measured: a dead peer is noticed after 8 s; without ping_timeout after a minute (C-core ignores
# keepalive_timeout), and pings more often than every 5 s make etcd hang up ("too_many_pings").
_OPTIONS = (
    ("grpc.keepalive_time_ms", 6000),
    ("grpc.keepalive_timeout_ms", 2000),
    ("grpc.http2.ping_timeout_ms", 2000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.max_receive_message_length", -1),
    ("grpc.client_idle_timeout_ms", 120_000),  # a member that we left: etcd counts its connections
)


class Connection:
    """A channel to one member, with the count of those who use it; entered once for each use."""

    __slots__ = ("_retired", "_users", "channel")

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel = channel
        self._users = 0
        self._retired = False

    @property
    def in_use(self) -> bool:
        """Whether somebody uses it."""
        return self._users > 0

    def retire(self) -> None:
        """Close it as soon as nobody uses it."""
        self._retired = True
        self._close_if_idle()

    def __enter__(self) -> Self:
        self._users += 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._users -= 1
        self._close_if_idle()

    def _close_if_idle(self) -> None:
        if self._retired and not self._users:
            self.channel.close()


class Connections:
    """The channels of one session.  Used on its loop only; closed by ``close``.

    Raises:
        ConfigurationError: A certificate file cannot be read or used.
    """

    def __init__(self, config: EtcdConfig, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._current: dict[str, Connection] = {}
        self._all: set[Connection] = set()
        self._watched: Watched | None = None
        files = config.certificate_files()
        if files.paths:
            self._watched = watch(files, self._replaced)
            self._credentials: grpc.ChannelCredentials | None = credentials_of(self._watched.material)
        else:
            self._credentials = grpc.ssl_channel_credentials() if config.tls else None

    def to(self, member: str) -> Connection:
        """The connection to ``member`` for a request that begins now."""
        connection = self._current.get(member)
        if connection is None:
            if self._credentials is None:
                channel = grpc.insecure_channel(member, options=_OPTIONS)
            else:
                channel = grpc.secure_channel(member, self._credentials, options=_OPTIONS)
            connection = self._current[member] = Connection(channel)
            self._all.add(connection)
        return connection

    def close(self) -> None:
        """Close all channels; what is in flight ends as cancelled."""
        if self._watched is not None:
            self._watched.close()
        for connection in self._all:
            connection.channel.close()
        self._all.clear()
        self._current.clear()

    def _replaced(self, material: Material) -> None:
        """On the thread that looks at files."""
        post(self._loop, self._use, material)

    def _use(self, material: Material) -> None:
        self._credentials = credentials_of(material)
        for connection in self._current.values():
            connection.retire()
        self._current.clear()
        self._all = {connection for connection in self._all if connection.in_use}


def credentials_of(material: Material) -> grpc.ChannelCredentials:
    """As gRPC wants them."""
    return grpc.ssl_channel_credentials(
        root_certificates=material.ca,
        private_key=material.key,
        certificate_chain=material.cert,
    )
