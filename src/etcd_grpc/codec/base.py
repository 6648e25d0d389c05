"""What every layout can do."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from etcd_grpc.model import Endpoint, Instance

__all__ = ["MAX_VALUE_BYTES", "Codec", "Entry"]

# A value is a few hundred bytes.  More is not an endpoint, and parsing it would let one writer decide
# how much memory every client uses.
MAX_VALUE_BYTES = 64 * 1024


class Entry(NamedTuple):
    """One key as etcd holds it; ``value`` is None when the key was deleted.

    ``revision`` is the ``mod_revision``: the revision of the change.
    """

    key: bytes
    value: bytes | None
    revision: int


class Codec(Protocol):
    """A layout.  Pure: no I/O, the same answer for the same input."""

    def prefix(self, service: str) -> bytes:
        """The key prefix under which the service's instances stand; it ends in ``/``."""

    def encode(self, instance: Instance) -> tuple[bytes, bytes]:
        """The key and value that announce ``instance``."""

    def decode(self, entry: Entry) -> Endpoint:
        """The endpoint that ``entry`` announces.

        Raises:
            StoredDataError: The entry announces none; the message says what is wrong with it.
        """
