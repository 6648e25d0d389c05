"""The layout of etcd's own naming package, ``go.etcd.io/etcd/client/v3/naming``: our default.

Key ``<service>/<address>``, or ``<service>/<id>`` for an id that the user has chosen; value
``{"Op":0,"Addr":"10.0.0.5:50051","Metadata":...}``.  Readers trust the event's type and ignore the
stored ``Op``; ``Metadata`` may be any JSON.  Our own fields stand in it as an object, and an entry that
has none of them (another program wrote it) is an endpoint with defaults.  The bytes written are those
that Go's ``json.Marshal`` would write.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import msgspec

from etcd_grpc.codec.base import MAX_VALUE_BYTES, Entry
from etcd_grpc.errors import ConfigurationError, StoredDataError
from etcd_grpc.model import Endpoint, Instance, Status, split_address

__all__ = ["NamingCodec"]

# What json.Marshal escapes beyond the JSON standard.  None of these bytes can stand outside a string.
_GO_ESCAPES = {
    b"<": b"\\u003c",
    b">": b"\\u003e",
    b"&": b"\\u0026",
    "\u2028".encode(): b"\\u2028",
    "\u2029".encode(): b"\\u2029",
}


class _Value(msgspec.Struct):
    # Readers ignore a stored Op, so whatever stands there must not make an entry unreadable.
    op: Any = msgspec.field(name="Op", default=0)
    addr: str = msgspec.field(name="Addr", default="")
    metadata: Any = msgspec.field(name="Metadata", default=None)


class _Metadata(msgspec.Struct):
    """Our own fields inside ``Metadata``."""

    id: str = ""
    weight: float = 1.0
    zone: str = ""
    version: str = ""
    status: Status = Status.SERVING
    protocol: str = "grpc"
    metadata: dict[str, Any] = {}
    identified: bool = False


# Where Go's encoding of a float has an exponent.
_EXPONENT_BELOW = 1e-6
_EXPONENT_FROM = 1e21

# A struct keeps its order, a map is sorted: what Go does.
_encoder = msgspec.json.Encoder(order="deterministic")
_decoder = msgspec.json.Decoder(_Value)


class NamingCodec:
    """etcd's official naming layout."""

    def prefix(self, service: str) -> bytes:
        return f"{service}/".encode()

    def encode(self, instance: Instance) -> tuple[bytes, bytes]:
        """Raises ConfigurationError if the metadata cannot be written as JSON, or is too large."""
        try:
            metadata = _as_go(dict(instance.metadata))
        except RecursionError:
            raise ConfigurationError("metadata is not JSON: it is nested too deeply") from None
        except TypeError as error:
            raise ConfigurationError(f"metadata is not JSON: {error}") from None
        weight = _as_go(instance.weight)
        fields = {
            "id": instance.id,
            "metadata": metadata,
            "protocol": "grpc",
            "status": instance.status.value,
            "version": instance.version,
            "weight": weight,
            "zone": instance.zone,
        }
        if instance.identified:
            fields["identified"] = True
        try:
            encoded = _encoder.encode(_Value(addr=instance.address, metadata=fields))
        except (TypeError, ValueError, OverflowError) as error:
            raise ConfigurationError(f"metadata is not JSON: {error}") from error
        for raw, escaped in _GO_ESCAPES.items():
            encoded = encoded.replace(raw, escaped)
        if len(encoded) > MAX_VALUE_BYTES:
            raise ConfigurationError(
                f"the instance takes {len(encoded)} bytes in etcd; the most is {MAX_VALUE_BYTES}: "
                "shorten its metadata"
            )
        name = instance.id if instance.named else instance.address
        return f"{instance.service}/{name}".encode(), encoded

    def decode(self, entry: Entry) -> Endpoint:
        if entry.value is None or len(entry.value) > MAX_VALUE_BYTES:
            size = "no value" if entry.value is None else f"{len(entry.value)} bytes"
            raise StoredDataError(f"{entry.key[:200]!r}: {size}, at most {MAX_VALUE_BYTES} expected")
        try:
            key = entry.key.decode()
            if not key.isprintable():
                raise StoredDataError(f"{entry.key[:200]!r}: the key has control characters")
            value = _decoder.decode(entry.value)
            split_address(value.addr)
            fields = _fields(value.metadata)
        except (
            msgspec.MsgspecError,
            UnicodeDecodeError,
            ConfigurationError,
            RecursionError,
        ) as bad:
            raise StoredDataError(f"{entry.key[:200]!r}: {str(bad)[:300]!r}") from bad
        return Endpoint(
            key=key,
            address=value.addr,
            id=fields.id,
            weight=fields.weight,
            zone=fields.zone,
            version=fields.version,
            status=fields.status,
            protocol=fields.protocol,
            metadata=MappingProxyType(fields.metadata),
            revision=entry.revision,
            identified=fields.identified,
        )


def _as_go(value: Any) -> Any:
    """``value`` such that its encoding is that of json.Marshal.

    Raises:
        TypeError: It has no place in JSON.
    """
    match value:
        case None | bool() | int() | str():
            return value
        case float() if not math.isfinite(value):
            raise TypeError(f"{value} is no JSON number")
        case float() if value.is_integer() and abs(value) < _EXPONENT_FROM:
            return int(value)  # Go programs that decode an int accept 2 and refuse 2.0
        case float():
            text = repr(value)
            if _EXPONENT_BELOW <= abs(value) < _EXPONENT_FROM:
                text = format(Decimal(text), "f")
            return msgspec.Raw(text.replace("e-0", "e-").encode())
        case list() | tuple():
            return [_as_go(item) for item in value]
        case Mapping():
            wrong = [key for key in value if not isinstance(key, str)]
            if wrong:
                raise TypeError(f"the key {wrong[0]!r} is no string")
            return {key: _as_go(item) for key, item in value.items()}
        case _:
            raise TypeError(f"a {type(value).__name__} has no place in it")


def _fields(metadata: Any) -> _Metadata:
    """Read our fields of ``Metadata``; a null field counts as absent."""
    if not isinstance(metadata, dict):
        return _Metadata()
    present = {name: value for name, value in metadata.items() if value is not None}
    fields = msgspec.convert(present, _Metadata)
    if not 0 <= fields.weight <= 1e6:
        raise ConfigurationError(f"weight {fields.weight!r} is not in 0..1000000")
    return fields
