"""The PEM files of one side of a TLS connection, and what stands in them at one moment.

The rule: what was checked is what is used.  So the files are read once, and the bytes are checked; a
file that is replaced between the check and its use cannot smuggle in a pair that does not match.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from etcd_grpc.certificates import facts_of
from etcd_grpc.errors import ConfigurationError

__all__ = ["CertificateFiles", "Material"]


@dataclass(frozen=True, slots=True)
class Material:
    """PEM, as gRPC takes it; None where there is no such file.  Never shown in ``repr``."""

    ca: bytes | None = field(repr=False)
    cert: bytes | None = field(repr=False)
    key: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """Where the certificates of one side stand.

    Attributes:
        ca: Who signed the other side's certificates.
        cert, key: This side's certificate, with its chain, and its key; both or neither.
        whose: What errors call the certificate.
    """

    ca: Path | None
    cert: Path | None
    key: Path | None
    whose: str = "certificate"

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files that there should be."""
        return tuple(path for path in (self.ca, self.cert, self.key) if path is not None)

    def load(self) -> Material:
        """Read and check.

        Raises:
            ConfigurationError: As ``read`` and ``check``.
        """
        material = self.read()
        self.check(material, dt.datetime.now(dt.UTC))
        return material

    def read(self) -> Material:
        """Read all files.

        Raises:
            ConfigurationError: One cannot be read.
        """
        return Material(_read(self.ca), _read(self.cert), _read(self.key))

    def check(self, material: Material, now: dt.datetime) -> None:
        """Check what was read: complete, belonging together, valid at ``now``.

        The dates are only checked where ``cryptography`` is installed (the extra ``tls``).

        Raises:
            ConfigurationError: The files are malformed, certificate and key do not match, the key is
                encrypted, or the certificate is not valid at ``now``.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if material.ca is not None:
            try:
                context.load_verify_locations(cadata=material.ca.decode("ascii"))
            except (ssl.SSLError, UnicodeDecodeError) as error:
                raise ConfigurationError(
                    f"cannot use the authority's certificates {self.ca}: {_reason(error)}. "
                    "It must be PEM"
                ) from None
        if material.cert is None or material.key is None:
            return
        self.load_into(context, material)
        facts = facts_of(material.cert)
        problem = facts.problem(now) if facts is not None else ""
        if problem:
            raise ConfigurationError(f"the {self.whose} {self.cert} {problem}")

    def load_into(self, context: ssl.SSLContext, material: Material) -> None:
        """Show the certificate in the handshakes of ``context``, if there is one.

        Raises:
            ConfigurationError: It and the key are malformed or do not match, or the key is encrypted.
        """
        if material.cert is None or material.key is None:
            return
        cert, key = _as_file(material.cert, self.cert), _as_file(material.key, self.key)
        try:
            with cert as cert_file, key as key_file:
                # Without a password it would ask at the terminal.
                context.load_cert_chain(cert_file, key_file, password=lambda: "")
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                raise ConfigurationError(
                    f"the key {self.key} does not belong to the certificate {self.cert}"
                ) from None
            raise ConfigurationError(
                f"cannot use the certificate {self.cert} with the key {self.key}: {_reason(error)}. "
                "Both must be PEM, and the key without a password"
            ) from None


def _read(path: Path | None) -> bytes | None:
    try:
        return None if path is None else path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from None


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or error)


@contextlib.contextmanager
def _as_file(pem: bytes, path: Path | None) -> Iterator[str]:
    """A path under which OpenSSL, which only takes files here, finds ``pem``: in memory, not on disk.

    Without memfd_create (other systems than Linux) it is the file itself.
    """
    create = getattr(os, "memfd_create", None)
    if create is None or not Path("/proc/self/fd").exists():
        yield str(path)
        return
    descriptor = create("etcd-grpc-tls")
    try:
        os.write(descriptor, pem)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
