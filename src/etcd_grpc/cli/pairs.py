"""``KEY=VALUE`` on the command line, as metadata."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from etcd_grpc.errors import ConfigurationError

__all__ = ["metadata_of"]


def metadata_of(pairs: Iterable[str]) -> dict[str, Any]:
    """The metadata; a value that reads as JSON is that, any other is text.

    Raises:
        ConfigurationError: One is no pair.
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not (key and equals):
            raise ConfigurationError(f"--metadata {pair!r} is not KEY=VALUE")
        try:
            found[key] = json.loads(text)
        except ValueError:
            found[key] = text
    return found
