"""Load reports (ORCA, gRFC A51) as they travel in the trailing metadata of an answer.  Pure.

A report goes out in two forms.  ``endpoint-load-metrics-bin`` holds the message
``xds.data.orca.v3.OrcaLoadReport``; gRPC's C core weighs by it (``weighted_round_robin``, gRFC A58),
and keeps it from Python applications.  ``endpoint-load-metrics`` holds the same as text, in the form
that the ORCA document calls native HTTP and Envoy reads::

    TEXT cpu_utilization=0.31,rps_fractional=120,named_metrics.in_flight=3

which is what a channel of ours reads.  The message is written by hand: it consists of doubles, whose
wire format is a tag and eight bytes.

The rule for reading: a report comes from elsewhere.  It is either well formed, with finite numbers that
are not negative, few and short, or it is none.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from etcd_grpc.errors import ConfigurationError

__all__ = [
    "BINARY_HEADER",
    "MAX_NAMED",
    "TEXT_HEADER",
    "OrcaLoadReport",
    "decode_text",
    "encode_binary",
    "encode_text",
]

BINARY_HEADER = "endpoint-load-metrics-bin"
TEXT_HEADER = "endpoint-load-metrics"
MAX_NAMED = 16  # both forms together stay far below the 8 KiB of metadata that gRPC allows

_TEXT = "TEXT "
_NAMED = "named_metrics."
_MAX_TEXT = 4096
_MAX_ITEMS = 64
# What does not end an item or a name in the text, nor may stand in metadata.
_NAME = re.compile(r"[A-Za-z0-9_./-]{1,64}")
_NUMBER = re.compile(r"[0-9]{1,40}(?:\.[0-9]{0,40})?(?:[eE][+-]?[0-9]{1,3})?")
# Current Envoy writes and reads "=", and still reads the ":" of its first releases.
_ITEM = re.compile(r"\s*([^=:\s]+)\s*[=:]\s*(\S+)\s*")

# Fields of the message that are plain doubles, and of an entry of its map (protobuf's own numbers).
_FIELDS = {
    "cpu_utilization": 1,
    "mem_utilization": 2,
    "rps_fractional": 6,
    "eps": 7,
    "application_utilization": 9,
}
_NAMED_FIELD, _ENTRY_KEY, _ENTRY_VALUE = 8, 1, 2
_WIRE_DOUBLE, _WIRE_BYTES = 1, 2


@dataclass(frozen=True, slots=True)
class OrcaLoadReport:
    """What a server says of its load; 0 in a field means that it does not say.

    Attributes:
        cpu_utilization: Share of the CPU that it may use; 1 is full, more is possible.
        mem_utilization: Share of the memory that it may use.
        application_utilization: The application's own figure; if there is one, weights are made of it.
        rps_fractional: Queries a second, whatever became of them.
        eps: Failed queries a second.
        named_metrics: Anything else, by name: at most 16, the names of letters, digits and ``_./-``.

    Raises:
        ConfigurationError: A number is negative, infinite or none, or a name cannot be sent.
    """

    cpu_utilization: float = 0.0
    mem_utilization: float = 0.0
    application_utilization: float = 0.0
    rps_fractional: float = 0.0
    eps: float = 0.0
    named_metrics: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        if len(self.named_metrics) > MAX_NAMED:
            raise ConfigurationError(
                f"{len(self.named_metrics)} named metrics; a load report holds {MAX_NAMED} at most"
            )
        for name in self.named_metrics:
            if not _NAME.fullmatch(name):
                raise ConfigurationError(
                    f"a load metric cannot be named {name!r:.100}: use at most 64 letters, digits "
                    "and _ . / -"
                )
        for name, value in _items(self):
            if not (math.isfinite(value) and value >= 0):
                raise ConfigurationError(f"load metric {name} is {value!r}; it must be 0 or more")

    @property
    def utilization(self) -> float:
        """What weights are computed of (gRFC A58): the application's figure, else the CPU's."""
        return self.application_utilization or self.cpu_utilization


def _items(report: OrcaLoadReport) -> Iterator[tuple[str, float]]:
    """Every number in it, with the name that it has in the text."""
    for name in _FIELDS:
        yield name, getattr(report, name)
    for name, value in report.named_metrics.items():
        yield _NAMED + name, value


def encode_text(report: OrcaLoadReport) -> str:
    """The value of ``endpoint-load-metrics``: what the report says, with six digits each."""
    said = [item for item in _items(report) if item[1] or item[0] not in _FIELDS]
    said = said or [("cpu_utilization", 0.0)]  # no item at all would be malformed
    return _TEXT + ",".join(f"{name}={value:.6g}" for name, value in said)


def decode_text(text: str) -> OrcaLoadReport | None:
    """Read the value of ``endpoint-load-metrics``; None if it is not a report in the text form.

    Metrics that are unknown are passed over, so that later servers can say more.  One that is
    malformed, or said twice, makes the whole report none, as it does in Envoy.
    """
    if len(text) > _MAX_TEXT or not text.startswith(_TEXT):
        return None
    items = text[len(_TEXT) :].split(",", _MAX_ITEMS)
    if len(items) > _MAX_ITEMS:
        return None
    seen: dict[str, float] = {}
    for item in items:
        match = _ITEM.fullmatch(item)
        if match is None or not _NUMBER.fullmatch(match[2]) or match[1] in seen:
            return None
        seen[match[1]] = float(match[2])
    fields = {name: value for name, value in seen.items() if name in _FIELDS}
    named = {
        name.removeprefix(_NAMED): value for name, value in seen.items() if name.startswith(_NAMED)
    }
    try:
        return OrcaLoadReport(**fields, named_metrics=MappingProxyType(named))
    except ConfigurationError:
        return None


def encode_binary(report: OrcaLoadReport) -> bytes:
    """The value of ``endpoint-load-metrics-bin``: the message, serialized."""
    parts = [_double(number, getattr(report, name)) for name, number in _FIELDS.items()]
    for name, value in report.named_metrics.items():
        raw = name.encode()
        entry = _tag(_ENTRY_KEY, _WIRE_BYTES) + bytes([len(raw)]) + raw + _double(_ENTRY_VALUE, value)
        # Lengths are those of names, and below the 128 from which on they would take a second byte.
        parts.append(_tag(_NAMED_FIELD, _WIRE_BYTES) + bytes([len(entry)]) + entry)
    return b"".join(parts)


def _tag(number: int, wire: int) -> bytes:
    return bytes([number << 3 | wire])


def _double(number: int, value: float) -> bytes:
    """A field; nothing for 0, which is what a field that is missing means."""
    return _tag(number, _WIRE_DOUBLE) + struct.pack("<d", value) if value else b""
