"""The certificate files with which a local cluster serves its clients.

etcd reads its own at every handshake, so replacing the files is a rotation.  Members still talk to
one another in plaintext.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

from etcd_grpc.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["TlsFiles"]


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files for ``Cluster(tls=...)``.

    Attributes:
        ca: The authority that signed the others.
        cert, key: The members' certificate, which must be for 127.0.0.1, and its key.
        client_cert, client_key: With these, members ask clients for a certificate of ``ca`` too
            (mutual TLS), and this is the one with which the cluster itself asks its members how
            they are.  Then ``cert`` must be good for clients as well as for servers: etcd's HTTP
            gateway, which is what the cluster asks, shows it to the member behind it.

    Raises:
        ConfigurationError: One of ``client_cert`` and ``client_key`` is missing.
    """

    ca: Path
    cert: Path
    key: Path
    client_cert: Path | None = None
    client_key: Path | None = None

    def __post_init__(self) -> None:
        if (self.client_cert is None) != (self.client_key is None):
            raise ConfigurationError("mutual TLS needs both client_cert and client_key")

    def flags(self) -> dict[str, str]:
        """The members' command line."""
        flags = {"cert-file": str(self.cert), "key-file": str(self.key)}
        if self.client_cert is not None:
            flags |= {"client-cert-auth": "true", "trusted-ca-file": str(self.ca)}
        return flags

    def environment(self) -> dict[str, str]:
        """What etcdctl, and this package, read."""
        variables = {"ETCDCTL_CACERT": str(self.ca)}
        if self.client_cert is not None:
            variables |= {"ETCDCTL_CERT": str(self.client_cert), "ETCDCTL_KEY": str(self.client_key)}
        return variables

    def context(self) -> ssl.SSLContext:
        """How the cluster comes to its own members.

        It does not check their certificate: whether an expired one is accepted is what a test wants
        to find out, and it must not keep the cluster from starting.

        Raises:
            ConfigurationError: The client's certificate cannot be read.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        if self.client_cert is not None:
            try:
                context.load_cert_chain(self.client_cert, self.client_key)
            except OSError as error:
                raise ConfigurationError(f"cannot use {self.client_cert}: {error}") from error
        return context
