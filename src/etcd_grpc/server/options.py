"""What a server is told: checked once, before anything is bound or written, for every way to serve.

``LifeOptions`` is what a life cycle needs, ``ServeOptions`` adds what it takes to build the server.
``serve``, its asyncio twin, workers and the command line all make these, and nothing else.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict, TypeVar

import grpc

from etcd_grpc.address import is_loopback
from etcd_grpc.config import EtcdArgument, EtcdConfig
from etcd_grpc.errors import ConfigurationError
from etcd_grpc.model import check_service, ip_of
from etcd_grpc.registration import DEFAULT_TTL_S, Plan, plan
from etcd_grpc.server.tls import ServerTls

__all__ = [
    "LifeOptions",
    "LifeSettings",
    "ServeOptions",
    "ServeSettings",
    "bracketed",
    "described_by",
    "serve_options",
]

F = TypeVar("F", bound=Callable[..., Any])


class LifeSettings(TypedDict, total=False):
    """The keyword arguments of a life cycle; ``LifeOptions`` says what they mean."""

    service: str | Sequence[str]
    id: str | None
    weight: float
    zone: str
    version: str
    metadata: Mapping[str, Any] | None
    ttl_s: int
    settle_s: float
    grace_s: float
    timeout_s: float
    required: bool
    etcd: EtcdArgument
    max_lag_s: float | None


class ServeSettings(LifeSettings, total=False):
    """The keyword arguments of ``serve``; ``ServeOptions`` says what they mean."""

    port: int
    host: str
    advertise: str | None
    credentials: grpc.ServerCredentials | ServerTls | None
    load_reports: bool
    options: Sequence[tuple[str, Any]]
    interceptors: Sequence[Any]
    compression: grpc.Compression | None
    max_workers: int | None
    maximum_concurrent_rpcs: int | None
    workers: int
    share_port: bool
    reflection: bool | None
    channelz: bool


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LifeOptions:
    """Under which names a server is known, and how it joins and leaves.

    Attributes:
        service: The name, or the names, under which clients look for it; each gets a registration.
        id: Identity of the instance, as for ``register``; None makes a new one.
        weight, zone, version, metadata: As for ``register``.
        ttl_s: How long, in seconds, a crashed process stays registered.
        settle_s: How long, in seconds, clients get to move away once they can know that it leaves.
        grace_s: How long, in seconds, leaving may take: to settle and to finish what is in flight.
        timeout_s: How long, in seconds, to wait for etcd when registering.
        required: False: serve also if etcd cannot be reached, and register as soon as it can.
        etcd: As for ``insecure_channel``.
        max_lag_s: asyncio: with a lag of the event loop beyond so many seconds the instance takes no
            calls until it has recovered; None does not look.

    Raises:
        ConfigurationError: One of them is wrong; the message says what to set instead.
    """

    service: str | Sequence[str]
    id: str | None = None
    weight: float = 1.0
    zone: str = ""
    version: str = ""
    metadata: Mapping[str, Any] | None = None
    ttl_s: int = DEFAULT_TTL_S
    settle_s: float = 0.5
    grace_s: float = 20.0
    timeout_s: float = 5.0
    required: bool = True
    etcd: EtcdArgument = None
    max_lag_s: float | None = 1.0

    def __post_init__(self) -> None:
        names = self.services
        if not names:
            raise ConfigurationError("no service is named: pass service='package.Service'")
        for name in names:
            check_service(name)
        if len(set(names)) < len(names):
            raise ConfigurationError(f"a service is named twice: {', '.join(names)}")
        object.__setattr__(self, "etcd", EtcdConfig.of(self.etcd))
        if self.max_lag_s is not None and not self.max_lag_s > 0:
            raise ConfigurationError(f"max_lag_s is {self.max_lag_s!r}; it must be above 0, or None")
        if not self.grace_s >= self.settle_s:
            raise ConfigurationError(
                f"grace_s is {self.grace_s!r}; it must be at least settle_s, {self.settle_s!r}, "
                "which is a part of it"
            )

    @property
    def services(self) -> tuple[str, ...]:
        """The names, each of them once."""
        return (self.service,) if isinstance(self.service, str) else tuple(self.service)

    def plans(
        self, *, port: int | None, host: str | None, address: str | None, identified: bool
    ) -> tuple[Plan, ...]:
        """A checked registration for each service, all with one id and one address.

        Raises:
            ConfigurationError: The address cannot be advertised, or another argument is wrong.
        """
        first = plan(
            self.services[0],
            port=port,
            host=host,
            address=address,
            id=self.id,
            weight=self.weight,
            zone=self.zone,
            version=self.version,
            metadata=self.metadata,
            ttl_s=self.ttl_s,
            settle_s=self.settle_s,
            timeout_s=self.timeout_s,
            required=self.required,
            etcd=self.etcd,
            identified=identified,
        )
        # What cannot stand in gRPC's metadata cannot be told.
        told = identified and first.instance.id.isascii()
        return tuple(
            dataclasses.replace(
                first, instance=dataclasses.replace(first.instance, service=name, identified=told)
            )
            for name in self.services
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """How a server is built, and the life it leads.

    Attributes:
        life: See ``LifeOptions``.
        port: Where to listen; 0 takes a free port.
        host: On which address to listen; only on the loopback unless told otherwise.
        advertise: ``host`` or ``host:port`` to tell clients; None takes ``ETCD_GRPC_ADVERTISE``,
            else the address on which the server listens, else the local one from which etcd is reached.
        credentials: None serves plaintext; with ``ServerTls`` certificates are replaced while it runs.
        load_reports: Tell clients with every answer how busy the process is (gRFC A51).
        options: gRPC's server options.
        interceptors: Interceptors of the server's world, the first one outermost.
        compression: As for ``grpc.server``.
        max_workers: Threads that handle calls; with asyncio, those for handlers that are no coroutines.
        maximum_concurrent_rpcs: Calls beyond it are refused with RESOURCE_EXHAUSTED.
        workers: How many processes serve, each an instance of its own: see ``supervise``.
        share_port: Other processes may listen on the same port (``SO_REUSEPORT``).
        reflection: Answer ``grpc.reflection``; None: if the extra ``server`` is installed.
        channelz: Answer ``grpc.channelz``.

    Raises:
        ConfigurationError: One of them is wrong; the message says what to set instead.
    """

    life: LifeOptions
    port: int = 0
    host: str = "127.0.0.1"
    advertise: str | None = None
    credentials: grpc.ServerCredentials | ServerTls | None = None
    load_reports: bool = True
    options: Sequence[tuple[str, Any]] = ()
    interceptors: Sequence[Any] = ()
    compression: grpc.Compression | None = None
    max_workers: int | None = None
    maximum_concurrent_rpcs: int | None = None
    workers: int = 1
    share_port: bool = False
    reflection: bool | None = None
    channelz: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.port, bool) or not isinstance(self.port, int) or not 0 <= self.port <= 65535:
            raise ConfigurationError(f"port {self.port!r} is not in 0..65535; 0 takes a free one")
        if not self.host:
            raise ConfigurationError("host is empty: 127.0.0.1 is this host only, 0.0.0.0 is all of it")
        if isinstance(self.workers, bool) or not isinstance(self.workers, int) or self.workers < 1:
            raise ConfigurationError(f"workers is {self.workers!r}; it must be 1 or more")
        for name in ("max_workers", "maximum_concurrent_rpcs"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigurationError(f"{name} is {value!r}; it must be 1 or more, or None")
        self.plans(self.port or 1)  # what is wrong with the address is told before anything is bound

    def plans(self, port: int) -> tuple[Plan, ...]:
        """The registrations of a server that listens on ``port``.

        Raises:
            ConfigurationError: Clients could not reach it there.
        """
        # Behind a port that is shared any of the sharers answers, so an id proves nothing; and their
        # keys must differ, which those that are made of the address would not.
        life, identified = self.life, not self.share_port
        if self.share_port and life.id is None:
            life = dataclasses.replace(life, id=uuid.uuid4().hex)
        told = self.advertise or os.environ.get("ETCD_GRPC_ADVERTISE", "")
        if ":" in told and not told.endswith("]"):  # a port that others see, in place of ours
            return life.plans(port=None, host=None, address=told, identified=identified)
        if told:
            return life.plans(port=port, host=told, address=None, identified=identified)
        self._check_reachable()
        ip = ip_of(self.host)
        anywhere = ip is not None and ip.is_unspecified
        host = None if anywhere else self.host
        return life.plans(port=port, host=host, address=None, identified=identified)

    def _check_reachable(self) -> None:
        config = EtcdConfig.of(self.life.etcd)
        local = all(is_loopback(address) for address in config.addresses)
        if not local and is_loopback(f"{bracketed(self.host)}:1"):
            raise ConfigurationError(
                f"the server would listen on {self.host} only, but etcd "
                f"({', '.join(config.addresses)}) "
                'is on another host, where clients may be too: pass host="0.0.0.0", and advertise=... '
                "if they reach this host by another name"
            )


def serve_options(**settings: Any) -> ServeOptions:
    """The options that the keyword arguments of ``serve`` make.

    Raises:
        ConfigurationError: One of them is wrong.
        TypeError: There is no such argument.
    """
    names = {field.name for field in dataclasses.fields(LifeOptions)}
    life = {name: settings.pop(name) for name in tuple(settings) if name in names}
    return ServeOptions(life=LifeOptions(**life), **settings)


def bracketed(host: str) -> str:
    """``host`` as it stands before a colon and a port."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def described_by(*options: Any) -> Callable[[F], F]:
    """Let ``help`` show the fields of these dataclasses as keyword arguments of a function."""
    fields = [field for one in options for field in dataclasses.fields(one) if field.name != "life"]

    def decorate(function: F) -> F:
        own = inspect.signature(function)
        given = [p for p in own.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        shown = [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty
                if field.default is dataclasses.MISSING
                else field.default,
                annotation=field.type,
            )
            for field in fields
        ]
        function.__signature__ = own.replace(parameters=[*given, *shown])  # type: ignore[attr-defined]
        return function

    return decorate
