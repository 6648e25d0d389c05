"""``etcd-grpc dev-ca``: certificates for development, from an authority of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from etcd_grpc.devcluster.authority import DevAuthority, Issued
from etcd_grpc.errors import ConfigurationError

__all__ = ["dev_ca"]


def dev_ca(
    directory: Annotated[Path, typer.Argument(file_okay=False, help="Where the files are kept.")],
    name: Annotated[
        list[str] | None,
        typer.Option(help="A name of the server: its service's, a host's or an address. Repeatable."),
    ] = None,
    client: Annotated[
        list[str] | None, typer.Option(help="A DNS name of the client. Repeatable.")
    ] = None,
    spiffe: Annotated[
        str, typer.Option(help="The client's SPIFFE ID: spiffe://TRUST-DOMAIN/PATH.")
    ] = "",
    days: Annotated[
        float, typer.Option(min=0.001, help="How long the certificates are valid, in days.")
    ] = 90,
) -> None:
    """Make certificates for development: a CA once, and a new certificate at every call.

    Writes ca.pem; server.pem and server.key for --name; client.pem and client.key for --client and
    --spiffe. A CA that is there is never overwritten; certificates are replaced, and programs that
    follow their files take them over.
    """
    if not (name or client or spiffe):
        raise ConfigurationError("name whom a certificate is for: --name, --client or --spiffe")
    authority = DevAuthority(directory)
    print(f"{authority.ca}: {'a new authority' if authority.created else 'the authority, as it was'}")
    if name:
        _show(authority.issue("server", name, days=days))
    if client or spiffe:
        _show(authority.issue("client", client or (), spiffe=spiffe, days=days))


def _show(issued: Issued) -> None:
    until = f"{issued.not_after:%Y-%m-%d %H:%M} UTC"
    print(f"{issued.cert} and {issued.key}: for {', '.join(issued.names)}, until {until}")
