"""``etcd-grpc devcluster``: local etcd members until Ctrl-C.

Standard output gets one line for the shell, everything meant for people goes to standard error.
However the command ends, no process and no temporary directory is left.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from etcd_grpc.devcluster import Cluster
from etcd_grpc.errors import EtcdGrpcError

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["devcluster"]

_LOOK_EVERY_S = 0.1


class _Interrupts:
    """Turns the first SIGINT, SIGTERM or SIGHUP into a ``KeyboardInterrupt``, and ignores the rest:
    no second Ctrl-C cuts the cleaning up short.

    ``requested`` says the same, for an exception that was raised where Python swallows them.  Once
    the cluster runs, ``raising`` is turned off: an exception in the middle of ``Popen.poll`` would
    leave its lock taken, and the process could never be waited for.
    """

    def __init__(self) -> None:
        self.requested = False
        self.raising = True
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup
                signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if not self.requested:
            self.requested = True
            if self.raising:
                raise KeyboardInterrupt


def devcluster(
    members: Annotated[int, typer.Option(min=1, help="How many etcd members to run.")] = 3,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            file_okay=False,
            help="Keep the data here and come back with it; a temporary directory by default.",
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=65535,
            help="Client port of the first member, the others' follow; free ports by default.",
        ),
    ] = None,
) -> None:
    """Run a local etcd cluster until Ctrl-C: loopback only, no TLS, not for data that matters.

    Prints a line for the shell: export ETCDCTL_ENDPOINTS=...
    """
    cluster: Cluster | None = None
    try:
        interrupts = _Interrupts()
        client_ports = None if port is None else range(port, port + members)
        cluster = Cluster(members, data_dir=data_dir, client_ports=client_ports)
        cluster.start()
        interrupts.raising = False
        _announce(cluster)
        _watch(cluster, interrupts)
        _say("stopping")
    except KeyboardInterrupt:
        _say("stopping")
    except EtcdGrpcError as error:
        _say(f"error: {error}")
        raise typer.Exit(1) from error
    finally:
        if cluster is not None:
            cluster.stop()


def _announce(cluster: Cluster) -> None:
    print(f"export ETCDCTL_ENDPOINTS={','.join(cluster.endpoints)}", flush=True)
    for member in cluster.members:
        _say(f"{member.name}: clients at {member.client_address}, process {member.pid}")
    _say("running; Ctrl-C ends it")


def _watch(cluster: Cluster, interrupts: _Interrupts) -> None:
    """Tell of members that end, until there is a signal."""
    told: set[str] = set()
    while not interrupts.requested:
        for member in cluster.members:
            if not member.alive and member.name not in told:
                told.add(member.name)
                _say(f"{member.name} has ended")
        time.sleep(_LOOK_EVERY_S)


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # a terminal that was closed must not keep us from stopping
        print(text, file=sys.stderr, flush=True)
