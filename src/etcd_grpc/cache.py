"""What a service begins with while etcd cannot be reached: its last view, and its last service config.

A file for each of them in the cache directory (``checked_file``): they decide where calls go.  etcd has
the truth; what stands here is of use only until it answers.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import msgspec

from etcd_grpc.checked_file import CheckedFile, UnusableError
from etcd_grpc.model import Endpoint, Status, split_address

__all__ = ["CacheFile", "ConfigFile", "Saved", "SavedConfig"]


class Saved(NamedTuple):
    """A view as it was saved.

    Attributes:
        endpoints: The view.
        saved_at: When, in seconds since the epoch.
    """

    endpoints: Sequence[Endpoint]
    saved_at: float


class SavedConfig(NamedTuple):
    """A service config as it was saved.

    Attributes:
        text: Its JSON; None: there is none.
        saved_at: When, in seconds since the epoch.
    """

    text: str | None
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


class _Content(msgspec.Struct):
    service: str
    etcd: list[str]
    saved_at: float


class _View(_Content):
    endpoints: list[_Endpoint]


class _Config(_Content):
    config: str


F = TypeVar("F", bound=_Content)


class _ServiceFile:
    """A file about one service.

    Args:
        folder: The cache directory.
        etcd: ``host:port`` of etcd's members: the same service elsewhere is another one.
        service: The service's name.
    """

    _suffix: str

    def __init__(self, folder: Path, etcd: Sequence[str], service: str) -> None:
        self._service = service
        self._etcd = sorted(etcd)
        digest = hashlib.sha256("\n".join([service, *self._etcd]).encode()).hexdigest()
        readable = re.sub(r"[^A-Za-z0-9._-]", "_", service)[:80]
        self._file = CheckedFile(folder / f"{readable}-{digest[:16]}{self._suffix}")

    @property
    def path(self) -> Path:
        """Where it is."""
        return self._file.path

    def _load(self, kind: type[F]) -> F | None:
        body = self._file.read()
        if body is None:
            return None
        try:
            found = msgspec.json.decode(body, type=kind)
        except msgspec.MsgspecError as error:
            raise UnusableError(f"it is malformed: {error}") from None
        if found.service != self._service or found.etcd != self._etcd:
            raise UnusableError("it is that of another service")
        return found


class CacheFile(_ServiceFile):
    """The last view of a service."""

    _suffix = ".json"

    def save(self, saved: Saved) -> None:
        """Replace the file.

        Raises:
            UnusableError: It cannot be written; what was there before still is.
        """
        endpoints = [_as_struct(endpoint) for endpoint in saved.endpoints]
        self._file.write(
            msgspec.json.encode(_View(self._service, self._etcd, saved.saved_at, endpoints))
        )

    def load(self) -> Saved | None:
        """What was saved; None if nothing was.

        Raises:
            UnusableError: There is a file, and it is of no use.
        """
        found = self._load(_View)
        if found is None:
            return None
        try:
            endpoints = [_as_endpoint(item) for item in found.endpoints]
        except ValueError as error:
            raise UnusableError(f"it is malformed: {error}") from None
        return Saved(endpoints, found.saved_at)


class ConfigFile(_ServiceFile):
    """The last service config that stood in etcd; there is no file if there was none."""

    _suffix = ".config.json"

    def save(self, saved: SavedConfig) -> None:
        """Replace the file, or remove it.

        Raises:
            UnusableError: It cannot be done; what was there before still is.
        """
        if saved.text is None:
            self._file.remove()
        else:
            self._file.write(
                msgspec.json.encode(_Config(self._service, self._etcd, saved.saved_at, saved.text))
            )

    def load(self) -> SavedConfig | None:
        """What was saved; None if nothing was.

        Raises:
            UnusableError: There is a file, and it is of no use.
        """
        found = self._load(_Config)
        return None if found is None else SavedConfig(found.config, found.saved_at)


def _as_struct(endpoint: Endpoint) -> _Endpoint:
    fields = {name: getattr(endpoint, name) for name in _Endpoint.__struct_fields__}
    return _Endpoint(**fields | {"metadata": dict(endpoint.metadata)})


def _as_endpoint(item: _Endpoint) -> Endpoint:
    """Raises ConfigurationError, a ValueError, if the address is none."""
    split_address(item.address)
    fields = msgspec.structs.asdict(item)
    return Endpoint(**fields | {"metadata": MappingProxyType(item.metadata)})
