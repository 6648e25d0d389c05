"""``etcd-grpc config``: the service config that stands in etcd for all clients of a service."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from etcd_grpc.cli.text import printable
from etcd_grpc.config_store import delete_config, read_config, write_config
from etcd_grpc.errors import ConfigurationError

__all__ = ["config"]

config = typer.Typer(
    no_args_is_help=True,
    help="Show or change the service config of a service: policy, retries, timeouts, for all clients.",
)

Service = Annotated[
    str, typer.Argument(metavar="SERVICE", help="Such as helloworld.Greeter.", show_default=False)
]
Etcd = Annotated[
    str | None,
    typer.Option(
        help="host:port,... of etcd's members; ETCDCTL_ENDPOINTS by default.", show_default=False
    ),
]
Timeout = Annotated[float, typer.Option(min=0.1, help="Seconds to wait for etcd.")]


@config.command("get")
def _get(service: Service, etcd: Etcd = None, timeout: Timeout = 5.0) -> None:
    """Print it; exit status 1 if there is none."""
    text = read_config(service, etcd, timeout_s=timeout)
    if text is None:
        print(f"etcd-grpc: {printable(service)} has no service config in etcd", file=sys.stderr)
        raise typer.Exit(1)
    print("\n".join(map(printable, text.splitlines())))


@config.command("set")
def _set(
    service: Service,
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="gRPC's service-config JSON; - is standard input.")
    ],
    etcd: Etcd = None,
    timeout: Timeout = 5.0,
) -> None:
    """Check it and put it into etcd; clients follow within a second."""
    revision = write_config(service, _read(file), etcd, timeout_s=timeout)
    print(f"{printable(service)} has a new service config, revision {revision}")


@config.command("delete")
def _delete(service: Service, etcd: Etcd = None, timeout: Timeout = 5.0) -> None:
    """Take it away; each client goes back to its own."""
    there = delete_config(service, etcd, timeout_s=timeout)
    print(f"{printable(service)} {'has no service config any more' if there else 'had none'}")


def _read(file: str) -> str:
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise ConfigurationError(f"cannot read {file}: {error}") from None
