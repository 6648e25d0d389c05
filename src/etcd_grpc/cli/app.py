"""The commands, and what all of them have in common: how they end.

An error of ours is one message on stderr and exit status 1 (2 is a wrong command line); Ctrl-C is
exit status 130 and no message.  A traceback means a bug.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from etcd_grpc._version import __version__
from etcd_grpc.cli.config import config
from etcd_grpc.cli.demo import demo
from etcd_grpc.cli.dev_ca import dev_ca
from etcd_grpc.cli.devcluster import devcluster
from etcd_grpc.cli.endpoints import endpoints
from etcd_grpc.cli.register import register
from etcd_grpc.cli.serve import serve
from etcd_grpc.cli.text import printable
from etcd_grpc.errors import EtcdGrpcError

__all__ = ["app"]


class _Group(TyperGroup):
    """Typer's group, which also ends errors of ours.  (Typer itself makes 130 of Ctrl-C.)"""

    def invoke(self, ctx: Any) -> Any:
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):  # what an ASCII terminal cannot show is no traceback
                stream.reconfigure(errors="backslashreplace")
        try:
            return super().invoke(ctx)
        except EtcdGrpcError as error:
            lines = str(error).splitlines()
            print("etcd-grpc:", "\n".join(map(printable, lines)), file=sys.stderr)
            raise typer.Exit(1) from error


app = typer.Typer(
    cls=_Group,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="gRPC service registration, discovery and client-side load balancing on etcd.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"etcd-grpc {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    del version


app.command()(demo)
app.command()(endpoints)
app.command()(devcluster)
app.command()(dev_ca)
app.add_typer(config, name="config")
app.command()(register)
app.command()(serve)


@app.command("version")
def _version() -> None:
    """Show the version."""
    _show_version(True)
