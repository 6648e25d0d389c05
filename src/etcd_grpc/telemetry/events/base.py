"""What every event is."""

from __future__ import annotations

import logging
from typing import ClassVar

__all__ = ["Event"]


class Event:
    """Something that happened."""

    __slots__ = ()
    level: ClassVar[int] = logging.INFO
    logger: ClassVar[str] = "etcd_grpc.etcd"
