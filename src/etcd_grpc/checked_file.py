"""A file that is replaced as a whole, and read only if nobody else could have touched it.

Its first line holds the SHA-256 of the rest; what is cut short or was changed is refused, and so is
what others could have written or read.  No fsync: after a power cut the checksum tells a torn file.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tempfile
from pathlib import Path

__all__ = ["CheckedFile", "UnusableError"]

_HEADER = "etcd-grpc snapshot 1 sha256:"
_MAX_BYTES = 64 * 1024 * 1024


class UnusableError(Exception):
    """The file cannot be written, or what it holds cannot be used; the message says why."""


class CheckedFile:
    """One file.  May block for as long as the disk does.

    Args:
        path: Where it is; the folder is made when needed, for its owner only.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, body: bytes) -> None:
        """Replace it.

        Raises:
            UnusableError: It cannot be written; what was there before still is.
        """
        folder = self.path.parent
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(prefix=f".{self.path.name}.", dir=folder)  # 0600
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(f"{_HEADER}{hashlib.sha256(body).hexdigest()}\n".encode() + body)
                Path(temporary).replace(self.path)
            except BaseException:
                with contextlib.suppress(OSError):
                    Path(temporary).unlink()
                raise
        except OSError as error:
            raise UnusableError(f"cannot be written: {error.strerror or error}") from None

    def remove(self) -> None:
        """There is none any more.

        Raises:
            UnusableError: It cannot be removed.
        """
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise UnusableError(f"cannot be removed: {error.strerror or error}") from None

    def read(self) -> bytes | None:
        """What was written; None if there is no file.

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
        return body

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
