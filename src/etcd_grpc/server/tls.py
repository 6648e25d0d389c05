"""TLS of a server, with certificates that are replaced on disk while it runs.

A handshake uses what stands on disk, within a second or so after a rotation; connections that are there
stay.  gRPC asks for certificates at every handshake, and is answered "as before" without a look at the
disk: one thread of this process looks (``tls.watcher``).
"""

from __future__ import annotations

import contextlib
import weakref
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc

from etcd_grpc.errors import ConfigurationError
from etcd_grpc.server.peer import Allowed, AllowedClients
from etcd_grpc.server.peer_check import AsyncPeerCheck, PeerCheck
from etcd_grpc.tls.material import CertificateFiles, Material
from etcd_grpc.tls.watcher import Watched, watch

__all__ = ["ServerTls"]


@dataclass(frozen=True, slots=True)
class ServerTls:
    """The certificates of a server, and which clients it takes.

    Args:
        cert, key: PEM files: the certificate with its chain, and its key.
        client_ca: Who signed the clients' certificates; a client without one is refused.  None: clients
            are not asked for any.
        allowed_clients: SPIFFE IDs and DNS names of the clients that may call; or a mapping from
            "/package.Service/Method", "package.Service" or "*" to those.  Empty: all that ``client_ca``
            signed.  It is ``interceptors`` that check it.

    Raises:
        ConfigurationError: ``allowed_clients`` is malformed, or given without ``client_ca``.
    """

    cert: Path | str
    key: Path | str
    client_ca: Path | str | None = None
    allowed_clients: AllowedClients = ()

    def __post_init__(self) -> None:
        if self.allowed_clients:
            Allowed(self.allowed_clients)
            if self.client_ca is None:
                raise ConfigurationError("allowed_clients needs client_ca: who else knows the clients?")

    def files(self) -> CertificateFiles:
        """The files that are followed."""
        ca = None if self.client_ca is None else Path(self.client_ca)
        return CertificateFiles(ca, Path(self.cert), Path(self.key), "server's certificate")

    def credentials(self) -> grpc.ServerCredentials:
        """Credentials for one call of ``add_secure_port``; a second port needs its own.

        The files are followed until the server that has the credentials has been collected.

        Raises:
            ConfigurationError: The files cannot be used as they are now.
        """
        return self._follow()[0]

    @contextlib.contextmanager
    def followed(self) -> Iterator[grpc.ServerCredentials]:
        """As ``credentials``, for a ``with`` block at whose end the files are followed no longer."""
        credentials, watched = self._follow()
        try:
            yield credentials
        finally:
            watched.close()

    def _follow(self) -> tuple[grpc.ServerCredentials, Watched]:
        news = _News()  # gRPC holds it, by ``take``, and lets it go with the server
        put = weakref.WeakMethod(news.put)

        def replaced(material: Material) -> None:
            if found := put():
                found(material)

        watched = watch(self.files(), replaced)
        weakref.finalize(news, watched.abandon)
        credentials = grpc.dynamic_ssl_server_credentials(
            _configuration(watched.material),
            news.take,  # type: ignore[arg-type]  # None means "as before"
            require_client_authentication=self.client_ca is not None,
        )
        return credentials, watched

    def interceptors(self) -> list[grpc.ServerInterceptor]:
        """What checks ``allowed_clients``, for ``grpc.server(interceptors=...)``."""
        return [PeerCheck(self.allowed_clients)] if self.allowed_clients else []

    def aio_interceptors(self) -> list[grpc.aio.ServerInterceptor]:
        """What checks ``allowed_clients``, for ``grpc.aio.server(interceptors=...)``."""
        return [AsyncPeerCheck(self.allowed_clients)] if self.allowed_clients else []


class _News:
    """What gRPC has not been told yet: the last one counts."""

    def __init__(self) -> None:
        self._next: deque[grpc.ServerCertificateConfiguration] = deque(maxlen=1)

    def put(self, material: Material) -> None:
        """On the thread that looks at files."""
        self._next.append(_configuration(material))

    def take(self) -> grpc.ServerCertificateConfiguration | None:
        """In a handshake; None: as before."""
        try:
            return self._next.pop()  # atomic: what is put meanwhile is not lost
        except IndexError:
            return None


def _configuration(material: Material) -> grpc.ServerCertificateConfiguration:
    assert material.key is not None
    assert material.cert is not None
    return grpc.ssl_server_certificate_configuration([(material.key, material.cert)], material.ca)
