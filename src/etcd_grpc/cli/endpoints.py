"""``etcd-grpc endpoints``: what is registered under a service.  Reads only.

Whatever stands in etcd was written by somebody else: it reaches the terminal escaped.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import Annotated, Any

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from etcd_grpc.cli.text import printable
from etcd_grpc.demo.view import ServiceView
from etcd_grpc.model import Endpoint, Snapshot
from etcd_grpc.target import parse_target

__all__ = ["endpoints"]

_LOOK_EVERY_S = 0.5  # the connection to etcd may break without any endpoint changing
_MAX_CELL = 100
_UNLIMITED = 10_000  # columns: what is no terminal gets one line for each endpoint


def endpoints(
    service: Annotated[
        str, typer.Argument(metavar="SERVICE", help="Such as helloworld.Greeter.", show_default=False)
    ],
    watch: Annotated[bool, typer.Option("--watch", help="Show every change, until Ctrl-C.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object (with --watch, one for each change).")
    ] = False,
    etcd: Annotated[
        str | None,
        typer.Option(
            help="host:port,... of etcd's members; ETCDCTL_ENDPOINTS by default.", show_default=False
        ),
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for etcd.")] = 5.0,
) -> None:
    """Show the instances that are registered under a service."""
    name = parse_target(service).service if service.startswith("etcd:") else service
    logger = logging.getLogger("etcd_grpc")
    logger.addHandler(_Complaints())
    logger.propagate = False
    with ServiceView(name, etcd) as view:
        snapshot = view.wait_resolved(timeout)
        if watch:
            _watch(view, as_json=as_json)
        else:
            _show(snapshot, view.status(), as_json=as_json)


class _Complaints(logging.Handler):
    """Says which entries were skipped; that etcd does not answer is said elsewhere."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == "etcd_grpc.resolver":
            print("etcd-grpc:", printable(record.getMessage()), file=sys.stderr, flush=True)


def _watch(view: ServiceView, *, as_json: bool) -> None:
    console = Console()
    if not as_json and console.is_terminal and not console.is_dumb_terminal:
        with Live(console=console, auto_refresh=False) as live:
            while True:
                live.update(_table(view.snapshot(), view.status()), refresh=True)
                view.wait_change(_LOOK_EVERY_S)
    shown: Snapshot | None = None
    while True:
        snapshot = view.snapshot()
        if shown is None or not _same(snapshot, shown):
            shown = snapshot
            _show(snapshot, view.status(), as_json=as_json)
        view.wait_change(_LOOK_EVERY_S)


def _same(one: Snapshot, other: Snapshot) -> bool:
    def told(snapshot: Snapshot) -> tuple[object, ...]:
        return snapshot.connected, snapshot.endpoints, snapshot.held, snapshot.rejected

    return told(one) == told(other)


def _show(snapshot: Snapshot, status: str, *, as_json: bool) -> None:
    if as_json:
        print(_json(snapshot), flush=True)
        return
    console = Console(width=None if sys.stdout.isatty() else _UNLIMITED, soft_wrap=True)
    console.print(_table(snapshot, status))


def _table(snapshot: Snapshot, status: str) -> RenderableType:
    count = len(snapshot.endpoints)
    head = f"{printable(snapshot.service)}: {count} registered; {printable(status)}{_doubts(snapshot)}"
    table = Table(box=None, pad_edge=False)
    for heading in ("ADDRESS", "STATUS", "WEIGHT", "ZONE", "VERSION", "ID"):
        table.add_column(heading, overflow="fold")
    for endpoint in sorted(snapshot.endpoints.values(), key=lambda endpoint: endpoint.key):
        table.add_row(*_cells(endpoint, endpoint.key in snapshot.held))
    return Group(Text(head), table) if count else Text(head)


def _doubts(snapshot: Snapshot) -> str:
    """What is to be known of the view besides itself."""
    doubts = []
    if not snapshot.connected:
        doubts.append(f"may be out of date ({snapshot.stale_s:.0f} s old)")
    if snapshot.held:
        doubts.append(f"{len(snapshot.held)} vanished from etcd together, and are kept for a minute")
    if snapshot.rejected:
        doubts.append(f"{snapshot.rejected} entries skipped")
    return "".join(f"; {doubt}" for doubt in doubts)


def _cells(endpoint: Endpoint, held: bool) -> list[Text]:
    fields = (
        endpoint.address,
        "vanished" if held else endpoint.status.value,
        f"{endpoint.weight:g}",
        endpoint.zone,
        endpoint.version,
        endpoint.id,
    )
    return [Text(printable(field, _MAX_CELL) or "-") for field in fields]


def _json(snapshot: Snapshot) -> str:
    """One line.  Escaped to ASCII; of its control characters JSON itself leaves only DEL as it is."""
    text = json.dumps(
        {
            "service": snapshot.service,
            "revision": snapshot.revision,
            "connected": snapshot.connected,
            "stale_s": round(snapshot.stale_s, 1),
            "rejected": snapshot.rejected,
            "endpoints": [
                _fields(endpoint) | {"held": endpoint.key in snapshot.held}
                for endpoint in snapshot.endpoints.values()
            ],
        }
    )
    return text.replace("\x7f", "\\u007f")


def _fields(endpoint: Endpoint) -> dict[str, Any]:
    return {
        "address": endpoint.address,
        "id": endpoint.id,
        "weight": endpoint.weight,
        "zone": endpoint.zone,
        "version": endpoint.version,
        "status": endpoint.status.value,
        "protocol": endpoint.protocol,
        "identified": endpoint.identified,
        "metadata": dict(endpoint.metadata),
        "key": endpoint.key,
        "revision": endpoint.revision,
    }
