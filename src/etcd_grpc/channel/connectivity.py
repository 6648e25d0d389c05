"""How we learn whether a real channel is connected, without a thread for each.

``grpc.aio.Channel`` has a public, non-blocking ``get_state``.  The synchronous channel has only
``subscribe``, which starts a polling thread a channel (200 channels: 200 threads and 11 % of a core).
The Cython channel inside both answers ``check_connectivity_state`` in half a microsecond without
blocking or locking, so this one file reaches for it; a test holds it to the grpcio that is installed.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import grpc

__all__ = ["READY", "Probe", "made_alone", "probe_of", "state_of"]

C = TypeVar("C")

# Takes "connect if idle"; returns gRPC's number of the state.  Thread-safe, never blocks.
Probe = Callable[[bool], int]

_STATES: dict[int, grpc.ChannelConnectivity] = {
    state.value[0]: state for state in grpc.ChannelConnectivity
}

READY: int = grpc.ChannelConnectivity.READY.value[0]


def probe_of(channel: grpc.Channel | grpc.aio.Channel) -> Probe:
    """The probe of a channel that gRPC itself made."""
    probe: Probe = channel._channel.check_connectivity_state  # type: ignore[union-attr]
    return probe


def state_of(number: int) -> grpc.ChannelConnectivity:
    """gRPC's name of a state."""
    return _STATES[number]


def made_alone(make: Callable[..., C], *arguments: Any) -> C:
    """Make a channel while no other of ours is being made.

    Channels that are made at the same moment on several threads and share one credentials object, such
    as a cloud's, can crash grpcio.
    """
    with _making:
        return make(*arguments)


_making = threading.Lock()  # guards the credentials objects of the application


def _forget_parent() -> None:
    global _making  # noqa: PLW0603 - a thread that is not in this process may have held it
    _making = threading.Lock()


os.register_at_fork(after_in_child=_forget_parent)
