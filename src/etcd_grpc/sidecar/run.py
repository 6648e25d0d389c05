"""The sidecar: what ``life.py`` decides is done here, on one event loop in the main thread.

The rule: nothing here decides.  Whatever happens (a signal, the answer of a probe, the end of the
program or of a time) is told to the machines, and what they return is carried out in order.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from etcd_grpc.errors import ConfigurationError, EtcdGrpcError
from etcd_grpc.processes.children import Children
from etcd_grpc.registration import Plan
from etcd_grpc.sidecar import life
from etcd_grpc.sidecar.checks import GrpcCheck, TcpCheck, listens
from etcd_grpc.sidecar.probe import Advice, ProbeMachine, ProbeRules
from etcd_grpc.sidecar.program import Program, find_program
from etcd_grpc.sidecar.standing import Standing
from etcd_grpc.telemetry import emit, events

__all__ = ["Settings", "run"]

_log = logging.getLogger("etcd_grpc.sidecar")

# An etcd that does not answer holds up a program's end for this long, besides what clients get.
_MARK_S = 1.0
_LEAVE_S = 2.0
_HURRY_S = 0.7
_CLOSE_GRACE_S = 1.0


@dataclass(frozen=True, slots=True)
class Settings:
    """What a sidecar does.

    Attributes:
        plan: What is registered.
        command: The program and its arguments; empty: it runs already, and is never ended.
        check: How it is looked at.
        rules: How often, and what to make of it.
        grace_s: Seconds that the program has for its end, from the signal to SIGKILL.

    Raises:
        ConfigurationError: One of them is wrong.
    """

    plan: Plan
    command: Sequence[str]
    check: TcpCheck | GrpcCheck
    rules: ProbeRules
    grace_s: float = 10.0

    def __post_init__(self) -> None:
        if not 0 <= self.grace_s < 1e6:
            raise ConfigurationError(f"grace_s is {self.grace_s!r}; it must be 0 or more seconds")


def run(settings: Settings) -> int:
    """Run the program until it ends, or until a signal says so.  In the main thread.

    Returns:
        The program's exit status, 128 + n if signal n ended it; without a program 0.

    Raises:
        ConfigurationError: There is no such program, something else listens on its port, or it was not
            well in time; it was ended then.
        EtcdGrpcError: It could not be registered; it was ended then.
    """
    if not settings.command:
        return asyncio.run(_Sidecar(settings, None).run())
    find_program(settings.command[0])
    with Children("sidecar") as children:
        try:
            return asyncio.run(_Sidecar(settings, children).run())
        finally:
            children.close(_CLOSE_GRACE_S)  # nothing to do, unless an exception brought us here


class _Sidecar:
    def __init__(self, settings: Settings, children: Children | None) -> None:
        self._settings = settings
        self._children = children
        self._program: Program | None = None
        self._life = life.Life(has_program=children is not None)
        self._stop_signals = life.stop_signals(has_program=children is not None)
        self._error: EtcdGrpcError | None = None  # why it could not go on
        self._why = "it was not looked at yet"  # the last bad answer
        self._leave_by = 0.0
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> int:
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[int] = self._loop.create_future()
        self._standing = Standing(self._settings.plan, self._cannot_register)
        self._machine = ProbeMachine(self._settings.rules, self._loop.time())
        if self._children is not None:
            await self._check_that_nobody_listens()
        self._handle_signals()
        if self._children is not None:
            self._program = Program(self._children, self._settings.command)
            self._start(self._watch(self._program))
        self._start(self._standing.run())
        self._start(self._probe())
        try:
            status = await self._done
            await self._standing.gone(max(0.05, self._leave_by - self._loop.time()))
        finally:
            await _cancel(self._tasks)
        if self._error is not None:
            raise self._error
        return status

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        """A task whose failure, which would be a defect of ours, is that of the sidecar."""

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            error = None if task.cancelled() else task.exception()
            if error is not None and not self._done.done():
                self._done.set_exception(error)

        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(ended)

    # What happens.

    def _handle_signals(self) -> None:
        forwarded = life.forwarded_signals() if self._children is not None else frozenset()
        for number in self._stop_signals | forwarded:
            # What is ignored, as SIGHUP is by nohup, stays so, for the program too.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._loop.add_signal_handler(number, self._signalled, number)

    def _signalled(self, number: int) -> None:
        if number in self._stop_signals:
            running = self._life.phase is life.Phase.RUNNING
            _log.info("%s: %s", signal.Signals(number).name, "draining" if running else "at once")
        self._do(self._life.signalled(number))

    async def _watch(self, program: Program) -> None:
        status = await program.wait()
        if self._life.phase in {life.Phase.RUNNING, life.Phase.DRAINING}:
            emit(events.ProgramEnded(self._settings.command[0], status, self._unwell()))
        self._do(self._life.ended(status))

    def _unwell(self) -> str:
        return "" if self._machine.ever_well else self._why

    async def _probe(self) -> None:
        while self._life.phase is life.Phase.RUNNING:
            why = await self._look()
            self._why = why or self._why
            self._tell(self._machine.seen(why, self._loop.time()))
            await asyncio.sleep(self._machine.interval_s)

    async def _look(self) -> str:
        if self._program is not None and self._program.stopped:
            return "the program is stopped (SIGSTOP, or it reads from the terminal)"
        return await self._settings.check(self._settings.rules.timeout_s)

    def _tell(self, advice: Advice) -> None:
        instance = self._settings.plan.instance
        if self._life.phase is not life.Phase.RUNNING:
            return
        if advice is Advice.WITHDRAW:
            emit(events.ProbeFailed(instance.service, instance.address, self._why))
        elif advice is Advice.REGISTER:
            emit(events.ProbeSucceeded(instance.service, instance.address))
        elif advice is Advice.GIVE_UP:
            self._error = ConfigurationError(self._never_well())
        self._do(self._life.advised(advice))

    def _never_well(self) -> str:
        limit_s, check = self._settings.rules.start_timeout_s, self._settings.check
        return (
            f"{_named(self._settings.command)} was not ready within {limit_s:g} s. Tried: {check}; the "
            f"last answer: {self._why}. Does it listen there? Say where to look with --probe-address, "
            "or how long to wait with --start-timeout"
        )

    def _cannot_register(self, error: EtcdGrpcError) -> None:
        if self._life.phase is life.Phase.RUNNING:
            self._error = error
        self._do(self._life.failed())

    # What is done.

    def _do(self, effects: Sequence[life.Effect]) -> None:
        for effect in effects:
            match effect:
                case life.Register():
                    self._leave_by = 0.0
                    self._standing.want()
                case life.Withdraw():
                    self._leave(0.0)
                case life.Drain():
                    self._leave(self._settings.plan.settle_s)
                    self._start(self._drain())
                case life.Send(number) if self._program is not None:
                    self._program.send(number)
                case life.StartGrace():
                    self._loop.call_later(self._settings.grace_s, self._grace_over)
                case life.Kill() if self._program is not None:
                    self._program.kill()
                case life.Finish(status) if not self._done.done():
                    self._done.set_result(status)

    def _leave(self, settle_s: float) -> None:
        hurry = self._life.phase is life.Phase.KILLED
        by = self._loop.time() + settle_s + (_HURRY_S if hurry else _LEAVE_S)
        self._leave_by = min(self._leave_by or by, by)
        self._standing.leave(settle_s)

    async def _drain(self) -> None:
        await self._standing.gone(self._settings.plan.settle_s + _MARK_S)
        self._do(self._life.drained())

    def _grace_over(self) -> None:
        if self._life.phase is life.Phase.STOPPING:
            _log.warning("it did not end within %g s; killing it", self._settings.grace_s)
        self._do(self._life.grace_over())

    async def _check_that_nobody_listens(self) -> None:
        address = self._settings.check.address
        if await listens(address, self._settings.rules.timeout_s):
            raise ConfigurationError(
                f"something listens on {address} already, and would be registered in place of "
                f"{_named(self._settings.command)}: stop it, choose another port, or, if it is what "
                "you mean, leave out the program"
            )


def _named(command: Sequence[str]) -> str:
    return command[0] if command else "what is to be registered"


async def _cancel(tasks: Iterable[asyncio.Task[None]]) -> None:
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
