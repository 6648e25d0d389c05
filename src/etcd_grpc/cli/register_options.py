"""The options of ``etcd-grpc register``: what each is called, takes and means."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated, Any

import typer

__all__: list[str] = []  # names of options, for the one command that has them

_INSTANCE, _PROGRAM, _PROBE, _ETCD = "The instance", "The program", "The probe", "etcd"


def _option(*names: str, help: str, panel: str, shown: bool = True, **more: Any) -> Any:  # noqa: A002
    return typer.Option(*names, help=help, rich_help_panel=panel, show_default=shown, **more)


class Kind(enum.StrEnum):
    """What is looked at."""

    TCP = "tcp"
    GRPC = "grpc"


Service = Annotated[
    str, typer.Argument(metavar="SERVICE", help="Such as helloworld.Greeter.", show_default=False)
]
Command = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="-- PROGRAM",
        help="What to start. Without it, what listens on the port is registered, and never ended.",
        show_default=False,
    ),
]

# The instance, as clients see it.

Port = Annotated[
    int | None,
    _option(
        help="The port on which the program listens.", panel=_INSTANCE, shown=False, min=1, max=65535
    ),
]
Host = Annotated[
    str | None,
    _option(
        help="The host that clients shall use. By default ETCD_GRPC_ADVERTISE, POD_IP, or the address "
        "of the interface towards etcd.",
        panel=_INSTANCE,
        shown=False,
    ),
]
Address = Annotated[
    str | None,
    _option(
        help="What clients shall use, in place of --host and --port.",
        panel=_INSTANCE,
        shown=False,
        metavar="HOST:PORT",
    ),
]
Id = Annotated[
    str | None,
    _option(
        "--id",
        help="Its identity, unique in the service; a random one by default.",
        panel=_INSTANCE,
        shown=False,
    ),
]
Weight = Annotated[float, _option(help="0 takes no calls, 1 is normal.", panel=_INSTANCE, min=0)]
Zone = Annotated[
    str, _option(help="Told to clients; ETCD_GRPC_ZONE by default.", panel=_INSTANCE, shown=False)
]
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

# The program, and its end.

Settle = Annotated[
    float,
    _option(
        help="Seconds that clients get to move away before the program gets its signal.",
        panel=_PROGRAM,
        min=0,
    ),
]
Grace = Annotated[
    float,
    _option(help="Seconds that it then has before SIGKILL.", panel=_PROGRAM, min=0),
]
StartTimeout = Annotated[
    float,
    _option(
        help="Seconds within which it must be well for the first time; 0: no limit.",
        panel=_PROGRAM,
        min=0,
    ),
]
Quiet = Annotated[
    bool, _option("--quiet", "-q", help="Say only what is wrong.", panel=_PROGRAM, shown=False)
]

# The probe.

Probe = Annotated[
    Kind,
    _option(
        help="tcp: it is well if its port accepts; grpc: if grpc.health.v1 says SERVING.", panel=_PROBE
    ),
]
ProbeAddress = Annotated[
    str | None,
    _option(
        help="Where to look; by default at the host that clients use, and --port.",
        panel=_PROBE,
        shown=False,
        metavar="HOST:PORT",
    ),
]
HealthService = Annotated[
    str,
    _option(
        help="The name to ask for in grpc.health.v1; by default the server as a whole.",
        panel=_PROBE,
        shown=False,
    ),
]
Interval = Annotated[float, _option(help="Seconds between two probes.", panel=_PROBE, min=0.01)]
ProbeTimeout = Annotated[float, _option(help="Seconds for an answer.", panel=_PROBE, min=0.01)]
Failures = Annotated[int, _option(help="Bad answers in a row that withdraw it.", panel=_PROBE, min=1)]
Successes = Annotated[int, _option(help="Good answers in a row that register it.", panel=_PROBE, min=1)]
Tls = Annotated[bool, _option("--tls", help="Probe grpc over TLS.", panel=_PROBE, shown=False)]
TlsCa = Annotated[
    Path | None,
    _option(
        help="PEM file of who signed the program's certificate; the system's by default.",
        panel=_PROBE,
        shown=False,
    ),
]
TlsCert = Annotated[
    Path | None,
    _option(help="PEM file of the probe's own certificate.", panel=_PROBE, shown=False),
]
TlsKey = Annotated[Path | None, _option(help="PEM file of its key.", panel=_PROBE, shown=False)]
TlsServerName = Annotated[
    str,
    _option(
        help="The name that the program's certificate is for, if it is not the host.",
        panel=_PROBE,
        shown=False,
    ),
]

# etcd.

Etcd = Annotated[
    str | None,
    _option(
        help="host:port,... of etcd's members; ETCDCTL_ENDPOINTS by default.", panel=_ETCD, shown=False
    ),
]
Ttl = Annotated[
    int,
    _option(help="Seconds for which it stays registered if the machine dies.", panel=_ETCD, min=1),
]
Timeout = Annotated[float, _option(help="Seconds to wait for etcd.", panel=_ETCD, min=0)]
Require = Annotated[
    bool,
    _option(
        "--require/--no-require",
        help="Fail if etcd does not answer in that time; or go on, and register when it does.",
        panel=_ETCD,
    ),
]
