"""What the two ``Lifecycle`` classes share: from checked registrations to the conductor's end."""

from __future__ import annotations

import atexit
import concurrent.futures
import contextlib
import dataclasses
import os
from collections.abc import Coroutine, Sequence
from typing import Any

from etcd_grpc import plane
from etcd_grpc.errors import ConfigurationError
from etcd_grpc.model import Instance
from etcd_grpc.registration import Plan
from etcd_grpc.server.conductor import Conductor, Host
from etcd_grpc.server.inflight import InFlight
from etcd_grpc.server.lifecycle import Event, State
from etcd_grpc.server.options import LifeOptions

__all__ = ["LifeCore"]


class LifeCore:
    """The state of one ``Lifecycle``, in whichever world it lives.

    Args:
        options: How to join and leave.
        plans: What is to be registered.
        in_flight: What the server has in flight, if anybody counts it.
    """

    def __init__(self, options: LifeOptions, plans: Sequence[Plan], in_flight: InFlight | None) -> None:
        self.options = options
        self.instances: tuple[Instance, ...] = tuple(planned.instance for planned in plans)
        self.identified = False  # whether health checks tell the id
        self._etcd = plans[0].etcd
        self._in_flight = in_flight
        self._early: list[Event] = []
        self._owner = os.getpid()
        self.control: plane.ControlPlane | None = None
        self.conductor: Conductor | None = None

    @property
    def state(self) -> State:
        """Where the server stands."""
        return State.STARTING if self.conductor is None else self.conductor.state

    @property
    def registered(self) -> bool:
        """Whether all of it stands in etcd at this moment."""
        return self.running and self.conductor is not None and self.conductor.registered

    @property
    def running(self) -> bool:
        """Whether there is a control loop of ours: not before the start, nor after the end."""
        return self.control is not None and not self.control.session.closed

    def health_metadata(self) -> str:
        """The id that health checks tell."""
        self.identified = True
        return self.instances[0].id if self.instances[0].identified else ""

    def open(self, host: Host) -> Conductor:
        """Begin; what was posted before happens now.

        Raises:
            ConfigurationError: It was begun before, or a certificate file cannot be read.
        """
        if self.conductor is not None:
            raise ConfigurationError("this Lifecycle was started before: make a new one")
        if not self.identified:
            self.instances = tuple(
                dataclasses.replace(instance, identified=False) for instance in self.instances
            )
        self.control = plane.acquire(self._etcd)
        _open.add(self)
        self.conductor = Conductor(self.control, self.instances, self.options, host, self._in_flight)
        for event in self._early:
            self.conductor.post(event)
        return self.conductor

    def post(self, event: Event) -> None:
        """Let ``event`` happen: soon, or as soon as there is somebody to whom it can.  Any thread."""
        if self.conductor is not None:
            self.conductor.post(event)
        else:
            self._early.append(event)

    def submit(self, coroutine: Coroutine[Any, Any, None]) -> concurrent.futures.Future[None]:
        """Run ``coroutine`` on the control loop."""
        assert self.control is not None
        return self.control.session.submit(coroutine)

    def close(self) -> None:
        """Give the control plane back.  Blocks for a moment; a second call does nothing."""
        _open.discard(self)
        control, self.control = self.control, None
        if control is not None and os.getpid() == self._owner:
            control.release()


# Those that nobody has closed when the interpreter exits leave in a hurry then.
_open: set[LifeCore] = set()
_AT_EXIT_S = 2.0


def _close_open() -> None:
    for core in list(_open):
        if core.running and core.conductor is not None:
            core.post(Event.STOP)
            core.post(Event.HURRY)
            with contextlib.suppress(TimeoutError):
                core.submit(core.conductor.ended()).result(_AT_EXIT_S)
        core.close()


atexit.register(_close_open)
os.register_at_fork(after_in_child=_open.clear)  # they are the parent's
