"""TLS of a channel: what ``secure_channel`` takes besides gRPC's own credentials."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from etcd_grpc.errors import ConfigurationError
from etcd_grpc.tls.material import CertificateFiles

__all__ = ["ChannelTls"]


@dataclass(frozen=True, slots=True)
class ChannelTls:
    """Certificates that are followed on disk: what is replaced there is used without a restart.

    Args:
        ca_cert: PEM file of those who sign the instances' certificates; None: gRPC's own roots.
        cert, key: PEM files of this client's certificate and its key; both or neither.
        server_name: What the instances' certificates must be for.  None: the service's name, or else
            the address that is called.

    Raises:
        ConfigurationError: One of ``cert`` and ``key`` is missing, or ``server_name`` is empty.
    """

    ca_cert: Path | str | None = None
    cert: Path | str | None = None
    key: Path | str | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise ConfigurationError("a client's certificate needs both cert and key")
        if self.server_name == "":
            raise ConfigurationError("server_name is empty: leave it out to check the service's name")

    def files(self) -> CertificateFiles:
        """The files that are followed."""
        ca, cert, key = (None if f is None else Path(f) for f in (self.ca_cert, self.cert, self.key))
        return CertificateFiles(ca, cert, key, "client certificate")
