"""The program's entry in etcd: there, or not, as is wanted; one step after the other.

The rule: what is wanted last is what comes to be.  A registration that fails for the first time is told
and not repeated: it is a mistake of whoever has just started us.  Later ones are repeated for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import random
from collections.abc import Callable

from etcd_grpc.errors import EtcdError, EtcdGrpcError
from etcd_grpc.etcd.backoff import Backoff
from etcd_grpc.registration import AsyncRegistration, Plan

__all__ = ["Standing"]

_log = logging.getLogger("etcd_grpc.sidecar")


class Standing:
    """Makes it so.  Used on one event loop.

    Args:
        plan: What is registered.
        refused: Told why the first registration failed.
    """

    def __init__(self, plan: Plan, refused: Callable[[EtcdGrpcError], None]) -> None:
        self._plan = plan
        self._refused = refused
        self._registration: AsyncRegistration | None = None
        self._wanted = False
        self._ever = False  # registered, or accepted to be as soon as etcd answers
        self._settle_s = 0.0
        self._changed = asyncio.Event()
        self._gone = asyncio.Event()
        self._gone.set()
        self._backoff = Backoff(random.Random(), initial_s=1.0, max_s=30.0)  # noqa: S311 - jitter
        self._name = f"{plan.instance.service} at {plan.instance.address}"

    def want(self) -> None:
        """It shall be registered."""
        self._wanted = True
        self._gone.clear()
        self._changed.set()

    def leave(self, settle_s: float) -> None:
        """It shall not; clients get ``settle_s`` to move away, or what is left of it if 0 follows."""
        self._wanted = False
        self._settle_s = settle_s
        self._changed.set()

    async def gone(self, timeout_s: float) -> bool:
        """Wait until nothing is registered, at most ``timeout_s``; return whether that is so."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._gone.wait()
        return self._gone.is_set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._changed.clear()
            if self._wanted and self._registration is None:
                await self._register()
            elif not self._wanted and self._registration is not None:
                await self._withdraw(self._registration)
                self._registration = None
            else:
                if not self._wanted:
                    self._gone.set()
                await self._changed.wait()

    async def _register(self) -> None:
        registration = AsyncRegistration(self._plan)
        try:
            await registration.start()
        except EtcdGrpcError as error:
            await self._failed(error)
            return
        self._registration = registration
        self._backoff.reset()
        if registration.registered:
            _log.info("%s is registered", self._name)
        else:
            _log.warning("etcd does not answer; %s is registered as soon as it does", self._name)
        # From now on no etcd that is away is a reason to give up.
        self._plan = dataclasses.replace(self._plan, required=False)
        self._ever = True

    async def _failed(self, error: EtcdGrpcError) -> None:
        if not self._ever:
            self._wanted = False
            self._refused(error)
            return
        _log.warning("%s is not registered, trying again: %s", self._name, error)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._backoff.next_delay()):
                await self._changed.wait()

    async def _withdraw(self, registration: AsyncRegistration) -> None:
        if self._settle_s > 0 and registration.registered:
            try:
                await registration.drain()
            except EtcdError as error:
                _log.warning("cannot mark %s as draining: %s", self._name, error)
            else:
                await self._settle()
        await registration.close(settle_s=0)
        _log.info("%s is withdrawn", self._name)

    async def _settle(self) -> None:
        """Give clients their time, unless somebody comes to be in a hurry."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settle_s):
                while self._settle_s > 0:
                    await self._changed.wait()
                    self._changed.clear()
