"""The demonstration as tables: live in a terminal, once at the end elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from types import TracebackType
from typing import Self, TextIO

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from etcd_grpc.demo.load import Tally
from etcd_grpc.demo.phases import PHASES, Phase, PhaseResult, World
from etcd_grpc.demo.report import PlainReporter, Reporter, shares
from etcd_grpc.demo.servers import Server, State
from etcd_grpc.model import Status

__all__ = ["LiveReporter", "TableReporter", "choose_reporter"]

_REFRESH_HZ = 4
_RATE_OVER_S = 1.0
_BAR_WIDTH = 20
_PLAIN_WIDTH = 100

_STATE_STYLES = {
    State.SERVING: "green",
    State.STARTING: "yellow",
    State.STOPPING: "yellow",
    State.STOPPED: "dim",
    State.CRASHED: "red",
}


class Board:
    """What the tables show.  Written by the main thread, read by the one that draws."""

    def __init__(self) -> None:
        self.results: dict[str, PhaseResult] = {}
        self.running: Phase | None = None
        self.world: World | None = None
        self.over = False
        self._samples: deque[tuple[float, dict[str, int]]] = deque()

    def end(self, result: PhaseResult) -> None:
        """Show ``result`` from now on."""
        self.results[result.name] = result
        self.running = None

    def rates(self, world: World) -> dict[str, float]:
        """Calls a second by address, over the last second."""
        now, counts = time.monotonic(), world.load.answered(world.load.total)
        self._samples.append((now, counts))
        while len(self._samples) > 1 and now - self._samples[1][0] >= _RATE_OVER_S:
            self._samples.popleft()
        then, before = self._samples[0]
        passed = now - then
        if passed <= 0:
            return {}
        return {address: (n - before.get(address, 0)) / passed for address, n in counts.items()}


def _table(first: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(first, no_wrap=True)
    return table


def phases_table(board: Board) -> Table:
    """One row for each phase."""
    table = _table("Phase")
    for heading, width in (("Calls", 5), ("Failed", 6), ("Time", 6), ("Slowest", 7)):
        table.add_column(heading, justify="right", no_wrap=True, min_width=width)
    table.add_column("Steady shares", min_width=20)
    table.add_column("Result", no_wrap=True, min_width=7)
    for phase in PHASES:
        table.add_row(*_phase_row(phase, board))
    return table


def _phase_row(phase: Phase, board: Board) -> tuple[Text, ...]:
    result, world = board.results.get(phase.name), board.world
    if result is not None:
        verdict = Text("held", "green") if result.ok else Text("FAILED", "bold red")
        counted = _numbers(result, result.seconds)
        return (Text(phase.name), *counted, Text(shares(result)), verdict)
    if phase is board.running and world is not None:
        counted = _numbers(world.tally, world.passed_s)
        state = Text("interrupted" if board.over else "running", "yellow")
        return (Text(phase.name, "bold"), *counted, Text(), state)
    state = Text("not run" if board.over else "", "dim")
    return (Text(phase.name, "dim"), *(Text() for _ in range(5)), state)


def _numbers(counted: Tally | PhaseResult, seconds: float) -> tuple[Text, ...]:
    return (
        Text(f"{counted.calls:,}"),
        Text(f"{counted.failed:,}", "bold red" if counted.failed else ""),
        Text(f"{seconds:.1f} s"),
        Text(f"{counted.slowest_s * 1000:.0f} ms"),
    )


def servers_table(world: World, rates: dict[str, float]) -> Table:
    """One row for each server process that there ever was."""
    table = _table("Server")
    table.add_column("State", no_wrap=True, min_width=len(State.STOPPING))
    table.add_column("In etcd", no_wrap=True)
    table.add_column("Calls/s", justify="right", no_wrap=True)
    table.add_column("Share", no_wrap=True)
    listed = world.listed()
    for server in tuple(world.fleet.servers):
        table.add_row(*_server_row(server, listed.get(server.address), rates))
    return table


def _server_row(
    server: Server, status: Status | None, rates: dict[str, float]
) -> tuple[RenderableType, ...]:
    rate = rates.get(server.address, 0.0)
    return (
        Text(server.address or "..."),
        Text(server.state, _STATE_STYLES[server.state]),
        Text(status or "no", "" if status else "dim"),
        Text(f"{rate:.0f}"),
        ProgressBar(total=max(1.0, sum(rates.values())), completed=rate, width=_BAR_WIDTH),
    )


def _members(world: World) -> Text:
    """One line on etcd itself."""
    line = Text("etcd:")
    for member in world.cluster.members:
        state = ("running", "green") if member.alive else ("killed -9", "red")
        line.append(f" {member.name} ").append(*state)
    return line


class LiveReporter:
    """Tables that change in place, with the notes scrolling by above them."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._board = Board()
        self._live = Live(console=console, refresh_per_second=_REFRESH_HZ, get_renderable=self._render)

    def note(self, text: str) -> None:
        self._console.print(Text(f"  {text}", "dim"))

    def playing(self, world: World) -> None:
        self._board.world = world

    def begin(self, phase: Phase) -> None:
        self._board.running = phase
        self._console.print(Text.assemble((phase.name, "bold"), f": {phase.about}"))

    def end(self, result: PhaseResult) -> None:
        self._board.end(result)
        for problem in result.problems:
            self._console.print(Text(f"  problem: {problem}", "red"))

    def _render(self) -> RenderableType:
        world, phases = self._board.world, phases_table(self._board)
        if world is None or self._board.over:
            return phases
        return Group("", _members(world), servers_table(world, self._board.rates(world)), phases)

    def __enter__(self) -> Self:
        self._live.start(refresh=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._board.over = True
        with contextlib.suppress(OSError):  # the terminal may be gone
            self._live.stop()


class TableReporter(PlainReporter):
    """Lines, and the table at the end."""

    def __init__(self, out: TextIO) -> None:
        super().__init__(out)
        self._board = Board()
        self._console = Console(file=out, width=_PLAIN_WIDTH, force_terminal=False, no_color=True)

    def end(self, result: PhaseResult) -> None:
        super().end(result)
        self._board.end(result)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._board.over = True
        if error is None:
            self._console.print(phases_table(self._board))


def choose_reporter(out: TextIO) -> Reporter:
    """Live tables if ``out`` is a terminal that can show them, else lines."""
    console = Console(file=out)
    if out.isatty() and console.is_terminal and not console.is_dumb_terminal:
        return LiveReporter(console)
    return TableReporter(out)
