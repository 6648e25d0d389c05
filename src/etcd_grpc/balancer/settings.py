"""How a policy's settings are read from gRPC's service-config JSON: types, ranges and messages.

Each policy has a frozen struct; the names of its fields, in camelCase, are gRPC's where gRPC has them.
msgspec checks types and ranges and names the field (``at `$.choiceCount```); fields that are not known
are ignored, as gRPC does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Protocol, TypeVar

import msgspec

from etcd_grpc.balancer.base import Policy, Setup
from etcd_grpc.errors import ConfigurationError

__all__ = ["ChildPolicy", "Percent", "Seconds", "Settings", "decode", "require", "seconds"]

_DURATION = re.compile(r"([0-9]{1,12}(\.[0-9]{1,9})?|\.[0-9]{1,9})s")

Percent = Annotated[float, msgspec.Meta(ge=0, le=100)]
ChildPolicy = list[dict[str, Any]]

S = TypeVar("S", bound="Settings")


class Seconds(float):
    """A duration; in JSON it is proto3's text, such as ``"0.5s"``."""

    __slots__ = ()


class Settings(Protocol):
    """A policy's settings, and what kind of policy it is.

    Attributes:
        wants_call: Its pickers need a ``Call``.
        wants_outcomes: It needs to know how calls end.
        heeds_weights: Weights change the shares.  What is not so cannot stand under ``slow_start``.
    """

    wants_call: ClassVar[bool]
    heeds_weights: ClassVar[bool]

    @property
    def wants_outcomes(self) -> bool: ...

    def build(self, setup: Setup) -> Policy:
        """A new policy with these settings."""


def seconds(text: object) -> Seconds:
    """Read a duration.

    Raises:
        ValueError: ``text`` is none.
    """
    if not isinstance(text, str) or not _DURATION.fullmatch(text):
        raise ValueError(f"{text!r} is not a duration such as '0.1s' or '2s'")
    return Seconds(text[:-1])


def decode(name: str, raw: Mapping[str, Any], kind: type[S]) -> S:
    """Read the settings of policy ``name``.

    Raises:
        ConfigurationError: A field is missing, of another type or out of range; it is named.
    """
    try:
        return msgspec.convert(raw, kind, dec_hook=_custom)
    except (msgspec.MsgspecError, TypeError, ValueError) as error:
        raise ConfigurationError(f"policy {name}: {error}") from error


def require(field: str, good: bool, needed: str) -> None:
    """Check a field in a way that a type cannot.

    Raises:
        ValueError: It is not ``good``.
    """
    if not good:
        raise ValueError(f"{field} must be {needed}")


def _custom(kind: type, value: object) -> object:
    if kind is Seconds:
        return seconds(value)
    raise NotImplementedError(kind)
