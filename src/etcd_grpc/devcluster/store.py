"""What a cluster remembers in a data directory that it was given.

Ports and names are part of etcd's own data (a member knows its peers by their URLs), so a cluster
that comes back on its data must come back on the same ports.  They are kept in a small JSON file
beside the members' directories; a lock keeps a second cluster out.
"""

from __future__ import annotations

import fcntl
from typing import TYPE_CHECKING

import msgspec

from etcd_grpc.errors import ConfigurationError, StoredDataError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["SavedCluster", "SavedMember", "Store"]

_FILE = "devcluster.json"
_LOCK = "devcluster.lock"
_UNFINISHED = "devcluster.tmp"


class SavedMember(msgspec.Struct, frozen=True):
    """One member's name and ports."""

    name: str
    client_port: int
    peer_port: int


class SavedCluster(msgspec.Struct, frozen=True):
    """The cluster's make-up, and whether every member ended in order the last time."""

    token: str
    members: tuple[SavedMember, ...]
    clean: bool = False


class Store:
    """A data directory, locked for this process until :meth:`close`.

    Raises:
        ConfigurationError: another cluster uses it, it holds other files, or it cannot be written.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / _FILE
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            present = {entry.name for entry in directory.iterdir()}
            foreign = present - {_LOCK, _UNFINISHED}
            if foreign and _FILE not in present:
                raise ConfigurationError(
                    f"data directory {directory} is not empty and holds no cluster of ours "
                    f"(found {min(foreign)!r}): choose an empty or a new one"
                )
            self._lock = (directory / _LOCK).open("a", encoding="utf-8")
        except OSError as error:
            raise ConfigurationError(f"cannot use data directory {directory}: {error}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            message = f"data directory {directory} is in use by another cluster"
            raise ConfigurationError(message) from error

    def load(self) -> SavedCluster | None:
        """What the last cluster here saved; ``None`` if there was none.

        Raises:
            StoredDataError: the file is damaged.
        """
        if not self._path.exists():
            return None
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=SavedCluster)
        except msgspec.DecodeError as error:
            raise StoredDataError(f"{self._path} is damaged: {error}") from error

    def save(self, cluster: SavedCluster) -> None:
        """Replace the file in one step, so that no crash leaves half of it."""
        temporary = self._path.with_name(_UNFINISHED)
        temporary.write_bytes(msgspec.json.encode(cluster) + b"\n")
        temporary.replace(self._path)

    def close(self) -> None:
        """Let other clusters in; harmless when repeated."""
        self._lock.close()
