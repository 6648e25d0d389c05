"""An attempt of a hedged call that waits for an endpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import grpc

from etcd_grpc.channel.subchannel import Subchannel

__all__ = ["HedgeWaiter"]

C = TypeVar("C", bound=grpc.Channel | grpc.aio.Channel)


@dataclass(slots=True, weakref_slot=True, eq=False)
class HedgeWaiter(Generic[C]):
    """Tells its call what became of the wait (a ``Waiter`` of the dispatcher).

    Attributes:
        deadline, wait_for_ready, metadata: The call's.
        found: An endpoint is there.
        missed: There is none, and none in sight.
    """

    deadline: float | None
    wait_for_ready: bool
    metadata: Any
    found: Callable[[Subchannel[C]], None]
    missed: Callable[[grpc.StatusCode, str], None]

    def go(self, subchannel: Subchannel[C]) -> None:
        self.found(subchannel)

    def fail(self, code: grpc.StatusCode, why: str) -> None:
        self.missed(code, why)
