"""Listeners themselves."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from etcd_grpc.telemetry.events.base import Event

__all__ = ["Dropped"]


@dataclass(frozen=True, slots=True)
class Dropped(Event):
    """A listener was so slow that ``count`` events before this one were dropped."""

    level = logging.WARNING
    logger = "etcd_grpc.telemetry"
    count: int

    def __str__(self) -> str:
        return f"a listener is too slow; {self.count} events were dropped"
