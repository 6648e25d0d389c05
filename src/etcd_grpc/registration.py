"""``register``: an instance stands in etcd for as long as a ``with`` block lasts.

Leaving the block withdraws it in the order that loses no call: marked as draining, a moment for the
clients to see it, deleted.  Only then should the server stop.
"""

from __future__ import annotations

import asyncio
import atexit
import dataclasses
import os
import uuid
from collections.abc import Coroutine, Mapping
from types import MappingProxyType, TracebackType
from typing import Any, Self, TypeVar

from etcd_grpc import plane
from etcd_grpc.advertise import advertised
from etcd_grpc.config import EtcdArgument, EtcdConfig, own_zone
from etcd_grpc.errors import ConfigurationError
from etcd_grpc.etcd.beside import in_thread
from etcd_grpc.intent import Intent
from etcd_grpc.model import Instance, Status
from etcd_grpc.registry import Registrar

__all__ = ["AsyncRegistration", "Registration", "plan", "register"]

T = TypeVar("T")

DEFAULT_TTL_S = 10


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """A checked registration that has not begun."""

    instance: Instance
    etcd: EtcdConfig
    ttl_s: int
    settle_s: float
    timeout_s: float
    required: bool


def plan(
    service: str,
    *,
    port: int | None,
    host: str | None,
    address: str | None,
    id: str | None,  # noqa: A002 - the field's own name
    weight: float,
    zone: str,
    version: str,
    metadata: Mapping[str, Any] | None,
    ttl_s: int,
    settle_s: float,
    timeout_s: float,
    required: bool,
    etcd: EtcdArgument,
    identified: bool = False,
) -> Plan:
    """Check the arguments of ``register`` before anything is written.

    ``identified``: the server answers health checks with the instance's id.

    Raises:
        ConfigurationError: One of them is wrong; the message says what to set instead.
    """
    config = EtcdConfig.of(etcd)
    if isinstance(ttl_s, bool) or not isinstance(ttl_s, int) or not 1 <= ttl_s <= 9_000_000_000:
        raise ConfigurationError(
            f"ttl_s is {ttl_s!r}; it must be a whole number of seconds, 1 or more (10 is usual)"
        )
    for name, value in (("settle_s", settle_s), ("timeout_s", timeout_s)):
        if not value >= 0:
            raise ConfigurationError(f"{name} is {value!r}; it must be 0 or more seconds")
    instance = Instance(
        service=service,
        address=advertised(config, port, host, address),
        id=uuid.uuid4().hex if id is None else id,
        weight=weight,
        zone=zone or own_zone(),
        version=version,
        metadata=MappingProxyType(dict(metadata or {})),
        named=id is not None,
        identified=identified,
    )
    return Plan(instance, config, ttl_s, settle_s, timeout_s, required)


def register(
    service: str,
    *,
    port: int | None = None,
    host: str | None = None,
    address: str | None = None,
    id: str | None = None,  # noqa: A002 - the field's own name
    weight: float = 1.0,
    zone: str = "",
    version: str = "",
    metadata: Mapping[str, Any] | None = None,
    ttl_s: int = DEFAULT_TTL_S,
    settle_s: float = 0.5,
    timeout_s: float = 5.0,
    required: bool = True,
    etcd: EtcdArgument = None,
) -> Registration:
    """Register one instance of ``service`` and keep it registered until it is closed.

    Call it when the server is listening; close the server after the ``with`` block.

    Args:
        service: The name under which clients look for it.
        port: The port on which the server listens.
        host: The host that clients shall use; None takes ``ETCD_GRPC_ADVERTISE``, else the local
            address from which etcd is reached.
        address: ``host:port``, in place of the two.
        id: Identity of this instance, unique in the service: a second live process with the same one is
            refused, a restart takes the place of its predecessor (which can take a third of
            ``ttl_s``).  None makes a new one each time.
        weight: 0 takes no calls; 1 is normal.  Other values are for policies that weigh, which
            ``round_robin`` does not.
        zone, version, metadata: Told to clients.  The zone is that of ``ETCD_GRPC_ZONE`` if none is
            given; the metadata must be JSON.
        ttl_s: How long, in seconds, a crashed process stays registered.
        settle_s: How long, in seconds, clients get to move away before the key is deleted.
        timeout_s: How long, in seconds, to wait for etcd, at each end.
        required: False: if etcd cannot be reached in that time, go on; the instance is registered as
            soon as it can.
        etcd: As for ``insecure_channel``.

    Raises:
        ConfigurationError: An argument is wrong; nothing was written.
        DuplicateInstanceError: A live process is registered under ``id``; it was left as it is.
        EtcdError: etcd could not be reached in time, or refused; nothing stays registered.
    """
    return Registration(
        plan(
            service,
            port=port,
            host=host,
            address=address,
            id=id,
            weight=weight,
            zone=zone,
            version=version,
            metadata=metadata,
            ttl_s=ttl_s,
            settle_s=settle_s,
            timeout_s=timeout_s,
            required=required,
            etcd=etcd,
        )
    )


class _Core:
    """What both worlds do on the control loop, from ``begin`` to ``end``."""

    def __init__(self, planned: Plan) -> None:
        self.plan = planned
        self.control = plane.acquire(planned.etcd)
        self.intent: Intent | None = None

    @property
    def instance(self) -> Instance:
        return self.plan.instance if self.intent is None else self.intent.instance

    async def begin(self) -> None:
        self.intent = await self._registrar().add(
            self.plan.instance, self.plan.timeout_s, required=self.plan.required
        )

    @property
    def registered(self) -> bool:
        """Any thread: attributes are read, each of them whole."""
        intent = self.intent
        closed = self.control.session.closed
        return intent is not None and not closed and self._registrar().stands(intent)

    async def change(self, weight: float | None, metadata: Mapping[str, Any] | None) -> None:
        assert self.intent is not None
        wanted = self.intent.instance
        if weight is not None:
            wanted = dataclasses.replace(wanted, weight=weight)
        if metadata is not None:
            wanted = dataclasses.replace(wanted, metadata=MappingProxyType(dict(metadata)))
        await self._registrar().change(self.intent, wanted, self.plan.timeout_s)

    async def drain(self) -> None:
        assert self.intent is not None
        draining = dataclasses.replace(self.intent.instance, status=Status.DRAINING)
        await self._registrar().change(self.intent, draining, self.plan.timeout_s)

    async def end(self, settle_s: float | None) -> None:
        if self.intent is not None:
            settle_s = self.plan.settle_s if settle_s is None else settle_s
            await self._registrar().withdraw(
                self.intent, settle_s=settle_s, timeout_s=self.plan.timeout_s
            )
            self.intent = None

    def _registrar(self) -> Registrar:
        return self.control.registrar(self.plan.ttl_s)


class Registration:
    """An instance that stands in etcd until ``close``; a context manager."""

    def __init__(self, planned: Plan) -> None:
        self._core = _Core(planned)
        self._closed = False
        try:
            self._wait(self._core.begin())
        except BaseException:
            self._closed = True
            self._core.control.release()
            raise
        _open.add(self._core)

    @property
    def instance(self) -> Instance:
        """What is registered."""
        return self._core.instance

    @property
    def registered(self) -> bool:
        """Whether it stands in etcd at this moment, as far as etcd has told us."""
        return not self._closed and self._core.registered

    def update(self, *, weight: float | None = None, metadata: Mapping[str, Any] | None = None) -> None:
        """Change the weight or the metadata in place.

        Raises:
            ConfigurationError: A value is wrong, or the registration is closed.
            EtcdError: etcd does not have it yet; the change stays wanted.
        """
        if self._closed or self._core.control.session.closed:
            raise ConfigurationError("this registration is closed, or belongs to a parent process")
        self._wait(self._core.change(weight, metadata))

    def drain(self) -> None:
        """Mark it as draining: clients send nothing new.  ``close`` deletes it then without delay.

        Raises:
            ConfigurationError: The registration is closed.
            EtcdError: etcd does not know it yet; it stays wanted.
        """
        if self._closed or self._core.control.session.closed:
            raise ConfigurationError("this registration is closed, or belongs to a parent process")
        self._wait(self._core.drain())

    def close(self, *, settle_s: float | None = None) -> None:
        """Withdraw: draining, ``settle_s`` for the clients, deleted.  A second call does nothing."""
        if self._closed:
            return
        self._closed = True
        _open.discard(self._core)
        if self._core.control.session.closed:  # a forked child: the registration is the parent's
            return
        try:
            self._wait(self._core.end(settle_s))
        finally:
            self._core.control.release()

    def _wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        future = self._core.control.session.submit(coroutine)
        try:
            return future.result()
        except BaseException:  # also an interrupted wait
            future.cancel()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class AsyncRegistration:
    """The same for asyncio: registered by ``async with``, or by ``await registration.start()``."""

    def __init__(self, planned: Plan) -> None:
        self._plan = planned
        self._core: _Core | None = None

    @property
    def instance(self) -> Instance:
        """What is, or is to be, registered."""
        return self._plan.instance if self._core is None else self._core.instance

    @property
    def registered(self) -> bool:
        """As ``Registration.registered``."""
        return self._core is not None and self._core.registered

    async def start(self) -> Self:
        """Register; return when the key stands in etcd.

        Raises:
            ConfigurationError: A certificate file cannot be read.
            EtcdError: etcd could not be reached in time, or refused; nothing stays registered.
        """
        if self._core is None:
            core = _Core(self._plan)
            try:
                await asyncio.wrap_future(core.control.session.submit(core.begin()))
            except BaseException:
                await in_thread(core.control.release)
                raise
            self._core = core
            _open.add(core)
        return self

    async def update(
        self, *, weight: float | None = None, metadata: Mapping[str, Any] | None = None
    ) -> None:
        """As ``Registration.update``."""
        if self._core is None:
            raise ConfigurationError("this registration is closed")
        change = self._core.change(weight, metadata)
        await asyncio.wrap_future(self._core.control.session.submit(change))

    async def drain(self) -> None:
        """As ``Registration.drain``."""
        if self._core is None:
            raise ConfigurationError("this registration is closed")
        await asyncio.wrap_future(self._core.control.session.submit(self._core.drain()))

    async def close(self, *, settle_s: float | None = None) -> None:
        """As ``Registration.close``."""
        core, self._core = self._core, None
        if core is not None and not core.control.session.closed:
            _open.discard(core)
            try:
                await asyncio.wrap_future(core.control.session.submit(core.end(settle_s)))
            finally:
                await in_thread(core.control.release)

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()


# Registrations that nobody has closed when the interpreter exits are withdrawn then.
_open: set[_Core] = set()


def _close_open() -> None:
    for core in list(_open):
        core.control.session.submit(core.end(0)).result()
        core.control.release()
    _open.clear()


atexit.register(_close_open)
os.register_at_fork(after_in_child=_open.clear)  # they are the parent's
