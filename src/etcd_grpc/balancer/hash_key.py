"""A key for ``ring_hash`` that goes with one call and is not sent to the server."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["Keyed", "with_hash_key"]


class Keyed(tuple[tuple[str, str | bytes], ...]):  # noqa: SLOT001 - a tuple's slots must be empty
    """Metadata of a call with a key.  An interceptor that makes other metadata of it loses the key."""

    hash_key: str


def with_hash_key(key: str, metadata: Iterable[tuple[str, str | bytes]] = ()) -> Keyed:
    """Metadata for a call that ``ring_hash`` shall place by ``key``.

    Args:
        key: Calls with the same key meet the same endpoint, whatever their metadata are.
        metadata: The call's metadata, if it has any.

    Returns:
        What the call takes as ``metadata``; the key itself is not among it.
    """
    keyed = Keyed(metadata)
    keyed.hash_key = key
    return keyed
