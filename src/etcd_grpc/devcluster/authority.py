"""A certificate authority for development and tests, in a directory.  Needs ``cryptography``.

``ca.pem`` and ``ca.key``, made once and never overwritten, and certificates that they sign.  Keys are
readable by their owner alone.  A certificate that is issued again replaces the one before, each file in
one step, so that programs which follow their files take it over while they run.

Not for production: the authority's key lies on the disk beside the rest, and nothing is ever revoked.
"""

from __future__ import annotations

import datetime as dt
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from etcd_grpc.errors import ConfigurationError

if TYPE_CHECKING:
    from etcd_grpc.devcluster.signing import Signer

__all__ = ["DevAuthority", "Issued"]


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate with its key, as files.

    Attributes:
        cert, key: PEM.
        names: Host names, addresses and the SPIFFE ID that the certificate is for.
        not_after: Its end, in UTC.
    """

    cert: Path
    key: Path
    names: tuple[str, ...]
    not_after: dt.datetime


class DevAuthority:
    """The authority in ``directory``, which is made if it is not there.

    Attributes:
        created: Whether the authority was made now.

    Raises:
        MissingExtraError: ``cryptography`` is not installed.
        ConfigurationError: The directory cannot be written, or what is there is no authority of ours.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._key_file = directory / "ca.key"
        self.created = False
        try:
            directory.mkdir(parents=True, exist_ok=True)
            if not self.ca.exists() and not self._key_file.exists():
                self._create()
            self._signer = self._open()
        except OSError as error:
            raise ConfigurationError(f"cannot use {directory}: {error.strerror}") from error

    @property
    def ca(self) -> Path:
        """The authority's certificate, for those who are to trust it."""
        return self._directory / "ca.pem"

    def issue(
        self, file: str, names: Sequence[str] = (), *, spiffe: str = "", days: float = 90
    ) -> Issued:
        """Sign a certificate, good for servers and for clients, in the place of the one before.

        Args:
            file: It becomes ``file.pem`` and ``file.key`` in the directory.
            names: Host names and addresses.
            spiffe: A SPIFFE ID ("spiffe://trust-domain/path"); "" for none.
            days: How long it is valid; never beyond the authority's own end.

        Raises:
            ConfigurationError: A name is none, there is none at all, or a file cannot be written.
        """
        if not file or file == "ca" or Path(file).name != file:
            raise ConfigurationError(f"{file!r} cannot be the name of a certificate's file")
        (cert, key), end = self._signer.sign(names, spiffe, dt.datetime.now(dt.UTC), days)
        issued = Issued(
            self._directory / f"{file}.pem",
            self._directory / f"{file}.key",
            (*names, *([spiffe] if spiffe else [])),
            end,
        )
        try:
            _write(issued.key, key, 0o600)
            _write(issued.cert, cert, 0o644)
        except OSError as error:
            raise ConfigurationError(f"cannot write to {self._directory}: {error}") from error
        return issued

    def _create(self) -> None:
        from etcd_grpc.devcluster.signing import new_authority  # noqa: PLC0415 - needs the extra

        cert, key = new_authority(dt.datetime.now(dt.UTC))
        # The key first: a certificate without it would look like somebody else's authority.
        _write(self._key_file, key, 0o600)
        _write(self.ca, cert, 0o644)
        self.created = True

    def _open(self) -> Signer:
        from etcd_grpc.devcluster.signing import load_signer  # noqa: PLC0415 - needs the extra

        for path in (self.ca, self._key_file):
            if not path.exists():
                raise ConfigurationError(
                    f"{self._directory} has an authority without {path.name}; it is left as it is. "
                    "Choose another directory, or put the file back"
                )
        try:
            signer = load_signer((self.ca.read_bytes(), self._key_file.read_bytes()))
        except (ValueError, TypeError) as error:
            raise ConfigurationError(
                f"{self._directory} has no authority of ours, and is left as it is: {error}"
            ) from error
        if signer.not_after < dt.datetime.now(dt.UTC):
            raise ConfigurationError(
                f"{self.ca} expired at {signer.not_after:%Y-%m-%d}: choose another directory"
            )
        return signer


def _write(path: Path, content: bytes, mode: int) -> None:
    """In one step: whoever reads it sees the file before, or this one."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        Path(name).chmod(mode)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
