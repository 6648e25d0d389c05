"""Which endpoints are meant: by version, zone and metadata."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from etcd_grpc.balancer.settings import require
from etcd_grpc.model import Endpoint

__all__ = ["Match"]


class Match(msgspec.Struct, frozen=True):
    """Conditions that an endpoint must meet, all of them.

    Attributes:
        version: The endpoint's version; "" is any.
        zone: The endpoint's zone; "" is any.
        metadata: Values that the endpoint's metadata must have.  They are compared as text, so that a
            URI's ``?shard=3`` finds a 3; true and false are written so.
    """

    version: str = ""
    zone: str = ""
    metadata: Mapping[str, str | int | float | bool] = {}

    def __post_init__(self) -> None:
        require("match", bool(self.version or self.zone or self.metadata), "version, zone or metadata")

    @classmethod
    def of(cls, wanted: Mapping[str, str]) -> Match:
        """From a target's query: ``version`` and ``zone`` are what they say, all else is metadata.

        Raises:
            ValueError: Nothing is wanted.
        """
        metadata = {name: text for name, text in wanted.items() if name not in {"version", "zone"}}
        return cls(wanted.get("version", ""), wanted.get("zone", ""), metadata)

    def __call__(self, endpoint: Endpoint) -> bool:
        """Whether ``endpoint`` meets the conditions."""
        if self.version and endpoint.version != self.version:
            return False
        if self.zone and endpoint.zone != self.zone:
            return False
        return all(_text(endpoint.metadata.get(n)) == _text(v) for n, v in self.metadata.items())


def _text(value: object) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    return None if value is None else str(value)
