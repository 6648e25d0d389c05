"""``pick_first``: all calls to one endpoint, for as long as it is there; then to the next.

gRPC's default policy, for one service instance with standbys.  It stays where it is when others come;
with ``shuffleAddressList`` (gRFC A62) each client begins with another one, which spreads clients, not
calls.  Here every endpoint stays connected, so the change to a standby costs no connection setup.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Generic, TypeVar

import msgspec

from etcd_grpc.balancer.base import Call, Candidate, Picker, Setup

__all__ = ["PickFirst", "PickFirstSettings"]

C = TypeVar("C", bound=Candidate)
T = TypeVar("T")


class PickFirstSettings(msgspec.Struct, frozen=True, rename="camel"):
    """``shuffleAddressList``: choose at random where to begin."""

    shuffle_address_list: bool = False

    wants_call: ClassVar[bool] = False
    wants_outcomes: ClassVar[bool] = False
    heeds_weights: ClassVar[bool] = False

    def build(self, setup: Setup) -> PickFirst:
        """A new policy."""
        return PickFirst(self, setup)


class PickFirst:
    """The policy.

    Args:
        settings: Its settings.
        setup: Its ``rng`` shuffles.
    """

    def __init__(self, settings: PickFirstSettings, setup: Setup) -> None:
        self._shuffle = settings.shuffle_address_list
        self._rng = setup.rng
        self._chosen: str | None = None

    def picker(self, candidates: Sequence[C], weights: Sequence[float]) -> Picker[C]:  # noqa: ARG002
        chosen = next((c for c in candidates if c.endpoint.key == self._chosen), None)
        if chosen is None:
            chosen = self._rng.choice(candidates) if self._shuffle else candidates[0]
            self._chosen = chosen.endpoint.key
        return _Picker(chosen)


class _Picker(Generic[T]):
    __slots__ = ("_chosen",)

    def __init__(self, chosen: T) -> None:
        self._chosen = chosen

    def pick(self, call: Call | None = None) -> T:  # noqa: ARG002
        return self._chosen

    def __len__(self) -> int:
        return 1
