"""The options of ``etcd-grpc serve``: what each is called, takes and means."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

__all__: list[str] = []  # names of options, for the one command that has them

_INSTANCE, _SERVER, _WORKERS, _TLS, _ETCD = "The instance", "The server", "Workers", "TLS", "etcd"


def _option(*names: str, help: str, panel: str, shown: bool = True, **more: Any) -> Any:  # noqa: A002
    return typer.Option(*names, help=help, rich_help_panel=panel, show_default=shown, **more)


def _file(help: str) -> Any:  # noqa: A002
    return _option(help=help, panel=_TLS, shown=False, exists=True, dir_okay=False)


Application = Annotated[
    str,
    typer.Argument(
        metavar="MODULE:FUNCTION",
        help="A function that adds your servicers to the server that it is given; looked for in the "
        "current directory, too.",
        show_default=False,
    ),
]
Service = Annotated[
    list[str],
    _option(
        "--service",
        "-s",
        help="Under which name clients look for it. Repeatable.",
        panel=_INSTANCE,
        shown=False,
    ),
]

# The instance, as clients see it.

Advertise = Annotated[
    str | None,
    _option(
        help="The host, or host:port, that clients shall use. By default ETCD_GRPC_ADVERTISE, POD_IP, "
        "or the address of the interface towards etcd.",
        panel=_INSTANCE,
        shown=False,
    ),
]
Id = Annotated[
    str | None,
    _option(
        "--id",
        help="Its identity, unique in the service; a random one by default. Worker n is ID-n.",
        panel=_INSTANCE,
        shown=False,
    ),
]
Weight = Annotated[float, _option(help="0 takes no calls, 1 is normal.", panel=_INSTANCE, min=0)]
Zone = Annotated[str, _option(help="Told to clients.", panel=_INSTANCE, shown=False)]
Version = Annotated[str, _option(help="Told to clients.", panel=_INSTANCE, shown=False)]
Metadata = Annotated[
    list[str] | None,
    _option(
        help="Told to clients; the value is JSON where it reads as such, else text. Repeatable.",
        panel=_INSTANCE,
        shown=False,
        metavar="KEY=VALUE",
    ),
]

# The server, and its end.

Port = Annotated[
    int,
    _option(
        "--port", "-p", help="Where to listen; 0 takes a free port.", panel=_SERVER, min=0, max=65535
    ),
]
Host = Annotated[
    str, _option(help="On which address; 0.0.0.0 is all that this host has.", panel=_SERVER)
]
Asyncio = Annotated[
    bool,
    _option(
        "--aio",
        help="Serve with grpc.aio: the servicers' methods are coroutines. A function that is a "
        "coroutine is always served so.",
        panel=_SERVER,
        shown=False,
    ),
]
Threads = Annotated[
    int | None,
    _option(help="How many threads handle calls.", panel=_SERVER, shown=False, min=1),
]
Reflection = Annotated[
    bool | None,
    _option(
        "--reflection/--no-reflection",
        help="Answer grpc.reflection; by default if grpcio-reflection is installed.",
        panel=_SERVER,
        shown=False,
    ),
]
Settle = Annotated[float, _option(help="Seconds that clients get to move away.", panel=_SERVER, min=0)]
Grace = Annotated[
    float,
    _option(help="Seconds that leaving may take, with what is in flight.", panel=_SERVER, min=0),
]
Quiet = Annotated[
    bool, _option("--quiet", "-q", help="Say only what is wrong.", panel=_SERVER, shown=False)
]

# Workers.

Workers = Annotated[
    int,
    _option(
        "--workers",
        "-w",
        help="How many processes. Each is an instance of its own: worker n listens on PORT + n.",
        panel=_WORKERS,
        min=1,
    ),
]
SharedPort = Annotated[
    bool,
    _option(
        "--shared-port",
        help="All of them listen on the one port; the kernel spreads connections over them.",
        panel=_WORKERS,
        shown=False,
    ),
]

# TLS.

TlsCert = Annotated[Path | None, _file("PEM file of the certificate, with its chain.")]
TlsKey = Annotated[Path | None, _file("PEM file of its key.")]
TlsClientCa = Annotated[
    Path | None,
    _file("PEM file of who signed the clients' certificates; a client without one is refused."),
]

# etcd.

Ttl = Annotated[
    int, _option(help="Seconds that a crashed process stays registered.", panel=_ETCD, min=1)
]
Timeout = Annotated[float, _option(help="Seconds to wait for etcd.", panel=_ETCD, min=0)]
Require = Annotated[
    bool,
    _option(
        "--require/--no-require",
        help="Without etcd: end, or serve and register as soon as it answers.",
        panel=_ETCD,
    ),
]
Etcd = Annotated[
    str | None,
    _option(
        help="host:port,... of etcd's members; ETCDCTL_ENDPOINTS by default.", panel=_ETCD, shown=False
    ),
]
