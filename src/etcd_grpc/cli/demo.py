"""``etcd-grpc demo``: everything, running, in half a minute."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Annotated

import typer

from etcd_grpc.demo.phases import PHASES, PhaseResult
from etcd_grpc.demo.report import as_json
from etcd_grpc.demo.run import Settings, run_demo
from etcd_grpc.demo.table import choose_reporter
from etcd_grpc.demo.waiting import Interrupts
from etcd_grpc.errors import EtcdGrpcError

__all__ = ["demo"]

_INTERRUPTED = 130  # what a shell says of a program that Ctrl-C has ended


def demo(
    json_output: Annotated[
        bool,
        typer.Option("--json", help="Print one JSON object on stdout, and the progress on stderr."),
    ] = False,
) -> None:
    """Run a real etcd, servers and a client under load, while servers come, go and crash.

    Phases: balanced, scale_out, graceful_stop, crash, etcd_member_loss.
    Each holds if no call failed and the servers' shares are equal within 2 %.
    Exit status: 0 all held, 1 not all, 130 interrupted.  Nothing is left behind.
    """
    interrupts = Interrupts()
    interrupts.install()
    # All of this is on the loopback interface, where a proxy has no business.
    os.environ["no_grpc_proxy"] = "127.0.0.1,localhost"  # noqa: SIM112 - as gRPC spells it
    began = time.monotonic()
    try:
        with choose_reporter(sys.stderr if json_output else sys.stdout) as reporter:
            results = run_demo(Settings(), reporter, interrupts)
    except KeyboardInterrupt:
        raise typer.Exit(_INTERRUPTED) from None
    except EtcdGrpcError as error:
        if json_output:
            print(json.dumps({"ok": False, "error": str(error), "phases": []}))
        raise
    finally:
        interrupts.ignore()
    if interrupts.requested:  # while everything was being stopped
        raise typer.Exit(_INTERRUPTED)
    _conclude(results, time.monotonic() - began, json_output=json_output)


def _conclude(results: Sequence[PhaseResult], seconds: float, *, json_output: bool) -> None:
    held = sum(result.ok for result in results)
    ok = held == len(PHASES)
    if json_output:
        print(json.dumps(as_json(results, ok=ok, seconds=seconds)))
    else:
        calls = sum(result.calls for result in results)
        failed = sum(result.failed for result in results)
        print(
            f"{held} of {len(PHASES)} phases held; {calls:,} calls, {failed:,} failed; "
            f"{seconds:.0f} s in all"
        )
    if not ok:
        raise typer.Exit(1)
