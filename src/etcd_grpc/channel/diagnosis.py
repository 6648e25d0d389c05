"""Why instances of a channel with TLS cannot be connected, for errors and for the log.

gRPC's answer to a connection that fails is a state.  So an instance that fails is looked at
(``tls.look``), on a thread of its own ("etcd-grpc-certificate"), one after another, each at most every
half minute.  Whoever fails a call for want of a connection waits for the answer, but not for long.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable, Iterable

from etcd_grpc.posting import post
from etcd_grpc.telemetry import emit, events

__all__ = ["Diagnosis"]

_AGAIN_S = 30.0
_FORGET_S = 300.0
_PATIENCE_S = 1.0  # what it may cost a call that fails anyway
_AT_ONCE = 3  # all instances mostly suffer from the same


class Diagnosis:
    """What is known of one channel's instances; on its loop, but for the look itself.

    Args:
        service: The service's name.
        look: Returns why there is no connection to an address; "" if that cannot be told.  Blocks.
        loop: The loop.
        told: Called on it when more is known, or is not worth waiting for any longer.
    """

    def __init__(
        self,
        service: str,
        look: Callable[[str], str],
        loop: asyncio.AbstractEventLoop,
        told: Callable[[], None],
    ) -> None:
        self._service = service
        self._look = look
        self._loop = loop
        self._told = told
        self._known: dict[str, tuple[str, float]] = {}  # why, and when it was found
        self._waited_for = 0.0  # until then calls wait
        self._looking = False
        self._patience: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def pending(self) -> bool:
        """Whether it is worth waiting for an answer."""
        return self._looking and self._loop.time() < self._waited_for

    def why(self, addresses: Iterable[str]) -> str:
        """What is known of one of these; "" if nothing is."""
        known = self._known
        return next((known[a][0] for a in addresses if a in known and known[a][0]), "")

    def notice(self, failing: Iterable[str]) -> None:
        """These cannot be connected: look at some of them, unless that was done a moment ago."""
        if self._looking or self._closed:
            return
        now = self._loop.time()
        fresh = (a for a in failing if a not in self._known or now - self._known[a][1] > _AGAIN_S)
        addresses = tuple(itertools.islice(fresh, _AT_ONCE))
        if not addresses:
            return
        self._looking = True
        self._waited_for = now + _PATIENCE_S
        self._patience = self._loop.call_later(_PATIENCE_S, self._told)
        threading.Thread(
            target=self._run, args=(addresses,), name="etcd-grpc-certificate", daemon=True
        ).start()

    def close(self) -> None:
        """Tell nothing more.  A look that is under way ends by itself."""
        self._closed = True
        if self._patience is not None:
            self._patience.cancel()

    # On the thread.

    def _run(self, addresses: tuple[str, ...]) -> None:
        post(self._loop, self._found, {address: self._look(address) for address in addresses})

    # On the loop.

    def _found(self, found: dict[str, str]) -> None:
        self._looking = False
        if self._closed:
            return
        if self._patience is not None:
            self._patience.cancel()
        now = self._loop.time()
        self._known = {a: known for a, known in self._known.items() if now - known[1] < _FORGET_S}
        for address, why in found.items():
            before, _ = self._known.get(address, ("", 0.0))
            self._known[address] = (why, now)
            if why and why != before:
                emit(events.InstanceRefused(self._service, address, why))
        self._told()
