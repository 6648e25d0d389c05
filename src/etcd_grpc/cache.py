"""The last view of a service in a file, for a start while etcd cannot be reached.

One file a service in the cache directory, replaced as a whole.  Its first line holds the SHA-256 of the
rest; a file that is cut short or was changed is refused, and so is one that others could have written
or read: it decides where calls go.  No fsync: after a power cut the checksum tells a torn file, and
etcd has the truth anyway.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec

from etcd_grpc.model import Endpoint, Status, split_address

__all__ = ["CacheFile", "Saved", "UnusableError"]

_HEADER = "etcd-grpc snapshot 1 sha256:"
_MAX_BYTES = 64 * 1024 * 1024


class UnusableError(Exception):
    """The file cannot be written, or what it holds cannot be used; the message says why."""


class Saved(NamedTuple):
    """What was saved.

    Attributes:
        endpoints: The view.
        saved_at: When, in seconds since the epoch.
    """

    endpoints: Sequence[Endpoint]
    saved_at: float


class _Endpoint(msgspec.Struct):
    key: str
    address: str
    id: str
    weight: float
    zone: str
    version: str
    status: Status
    protocol: str
    metadata: dict[str, Any]
    revision: int
    identified: bool = False


class _File(msgspec.Struct):
    service: str
    etcd: list[str]
    saved_at: float
    endpoints: list[_Endpoint]


class CacheFile:
    """The file of one service.  May block for as long as the disk does.

    Args:
        folder: The cache directory; made when needed, for its owner only.
        etcd: ``host:port`` of etcd's members: the same service elsewhere is another one.
        service: The service's name.
    """

    def __init__(self, folder: Path, etcd: Sequence[str], service: str) -> None:
        self._service = service
        self._etcd = sorted(etcd)
        digest = hashlib.sha256("\n".join([service, *self._etcd]).encode()).hexdigest()
        readable = re.sub(r"[^A-Za-z0-9._-]", "_", service)[:80]
        self.path = folder / f"{readable}-{digest[:16]}.json"

    def save(self, saved: Saved) -> None:
        """Replace the file.

        Raises:
            UnusableError: It cannot be written; what was there before still is.
        """
        endpoints = [_as_struct(endpoint) for endpoint in saved.endpoints]
        body = msgspec.json.encode(_File(self._service, self._etcd, saved.saved_at, endpoints))
        text = f"{_HEADER}{hashlib.sha256(body).hexdigest()}\n".encode() + body
        folder = self.path.parent
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(prefix=f".{self.path.name}.", dir=folder)  # 0600
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(text)
                Path(temporary).replace(self.path)
            except BaseException:
                with contextlib.suppress(OSError):
                    Path(temporary).unlink()
                raise
        except OSError as error:
            raise UnusableError(f"cannot be written: {error.strerror or error}") from None

    def load(self) -> Saved | None:
        """What was saved; None if nothing was.

        Raises:
            UnusableError: There is a file, and it is of no use.
        """
        try:
            text = self._read()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UnusableError(f"cannot be read: {error.strerror or error}") from None
        header, _, body = text.partition(b"\n")
        if header != f"{_HEADER}{hashlib.sha256(body).hexdigest()}".encode():
            raise UnusableError("its checksum is wrong: it was cut short or changed")
        try:
            found = msgspec.json.decode(body, type=_File)
            endpoints = [_as_endpoint(item) for item in found.endpoints]
        except (msgspec.MsgspecError, ValueError) as error:
            raise UnusableError(f"it is malformed: {error}") from None
        if found.service != self._service or found.etcd != self._etcd:
            raise UnusableError("it is that of another service")
        return Saved(endpoints, found.saved_at)

    def _read(self) -> bytes:
        descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode) or found.st_size > _MAX_BYTES:
                raise UnusableError("it is no regular file of at most 64 MiB")
            if found.st_uid != os.geteuid() or found.st_mode & 0o077:
                raise UnusableError(
                    f"others may read or write it (owner {found.st_uid}, mode "
                    f"{stat.S_IMODE(found.st_mode):04o}): it must be ours, and 0600"
                )
            return file.read()


def _as_struct(endpoint: Endpoint) -> _Endpoint:
    fields = {name: getattr(endpoint, name) for name in _Endpoint.__struct_fields__}
    return _Endpoint(**fields | {"metadata": dict(endpoint.metadata)})


def _as_endpoint(item: _Endpoint) -> Endpoint:
    """Raises ConfigurationError, a ValueError, if the address is none."""
    split_address(item.address)
    fields = msgspec.structs.asdict(item)
    return Endpoint(**fields | {"metadata": MappingProxyType(item.metadata)})
