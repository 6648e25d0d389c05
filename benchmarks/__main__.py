"""``python -m benchmarks NAME [--quick]``: one JSON object on stdout, everything else on stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from typing import Annotated

import typer

from benchmarks import (
    call_overhead,
    endpoints,
    failover,
    pick,
    propagation,
    recovery,
    rolling_restart,
    rolling_workers,
    scale,
    tail_latency,
    workers,
)
from benchmarks.outcome import BenchmarkError, Outcome, Size, load_average, machine
from etcd_grpc.errors import EtcdGrpcError

__all__ = ["main"]

# The table of benchmarks: a new one is one file and one line here.
_BENCHMARKS: Mapping[str, Callable[[Size], Outcome]] = {
    "call_overhead": call_overhead.run,
    "endpoints": endpoints.run,
    "failover": failover.run,
    "pick": pick.run,
    "propagation": propagation.run,
    "recovery": recovery.run,
    "rolling_restart": rolling_restart.run,
    "rolling_workers": rolling_workers.run,
    "scale": scale.run,
    "tail_latency": tail_latency.run,
    "workers": workers.run,
}


def _command(
    name: Annotated[str | None, typer.Argument(help="Which benchmark.", show_default=False)] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Measure less: within 40 s.")] = False,
    tiny: Annotated[bool, typer.Option("--tiny", hidden=True)] = False,
    runs: Annotated[int | None, typer.Option(min=1, help="rolling_restart: how often.")] = None,
    listed: Annotated[bool, typer.Option("--list", help="List the benchmarks and exit.")] = False,
) -> None:
    """Measure, and print what was found as one JSON object."""
    if listed:
        print("\n".join(sorted(_BENCHMARKS)))
        return
    if name is None or name not in _BENCHMARKS:
        known = ", ".join(sorted(_BENCHMARKS))
        said = "which benchmark?" if name is None else f"there is no benchmark {name!r};"
        print(f"{said} known are {known}", file=sys.stderr)
        raise typer.Exit(2)
    size = Size.TINY if tiny else Size.QUICK if quick else Size.FULL
    try:
        report = _measure(name, size, runs)
    except (BenchmarkError, EtcdGrpcError) as error:
        print(error, file=sys.stderr)
        raise typer.Exit(1) from None
    print(json.dumps(report, indent=2))


def _measure(name: str, size: Size, runs: int | None) -> dict[str, object]:
    setup = machine() | {"quick": size is Size.QUICK, "size": size.value, "load_before": load_average()}
    began = time.monotonic()
    repeated = name == "rolling_restart"
    outcome = rolling_restart.run(size, runs) if repeated else _BENCHMARKS[name](size)
    setup |= outcome.counts
    setup |= {"load_after": load_average(), "seconds": round(time.monotonic() - began, 1)}
    return {"benchmark": name, "results": dict(outcome.results), "setup": setup}


def main() -> None:
    """Run the command line."""
    if sys.platform != "linux":
        sys.exit("the benchmarks need Linux: all of 127.0.0.0/8, and /proc")
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(name="benchmarks")(_command)
    app(prog_name="python -m benchmarks")


if __name__ == "__main__":
    main()
