"""The parent of worker processes: starts them, listens to them, and does what the supervisor decides.

One thread does all of it and waits in one place.  What the workers write comes out on our standard
error, line by line, with the worker's number in front.
"""

from __future__ import annotations

import contextlib
import enum
import os
import random
import selectors
import signal
import sys
import time
from collections.abc import Iterable

from etcd_grpc import errors
from etcd_grpc.etcd.backoff import Backoff
from etcd_grpc.server.load_meter import Counts
from etcd_grpc.server.workers.child import Child
from etcd_grpc.server.workers.fleet import Fleet, Worker
from etcd_grpc.server.workers.link import Counted, Failed, FromWorker, Loaded, Order, Ready
from etcd_grpc.server.workers.link import Go as GoMessage
from etcd_grpc.server.workers.link import Hurry as HurryMessage
from etcd_grpc.server.workers.link import Leave as LeaveMessage
from etcd_grpc.server.workers.supervisor import (
    Crashed,
    Effect,
    Go,
    Hurry,
    Kill,
    RollEnded,
    Spawn,
    Stop,
    Supervisor,
)
from etcd_grpc.telemetry import emit, events

__all__ = ["Request", "Workers"]

_FIRST_DELAY_S = 0.5
_LONGEST_DELAY_S = 30.0
_LOOK_EVERY_S = 1.0  # for the end of one whose socket somebody else still holds open
_LOOK_SOON_S = 0.02  # for the end of one whose socket has closed
_SILENT_S = 5.0  # how long such a one may take to end
_HOPELESS = {"ConfigurationError", "MissingExtraError"}  # another attempt does no better


class Request(enum.Enum):
    """What can be asked of the parent, at any time, from any thread or signal handler."""

    STOP = b"s"
    ROLL = b"r"
    TELL = b"t"


class Workers:
    """Runs workers until it is asked to stop, or none is left.

    Args:
        orders: What the worker of each place is told.
        exclusive: Two processes of one place cannot serve at the same time.
        grace_s: How long a worker may take to leave, in seconds.
    """

    def __init__(self, orders: Iterable[Order], *, exclusive: bool, grace_s: float) -> None:
        self._orders = list(orders)
        self._machine = Supervisor(
            len(self._orders),
            exclusive=exclusive,
            grace_s=grace_s,
            delays=lambda: Backoff(
                random.SystemRandom(), initial_s=_FIRST_DELAY_S, max_s=_LONGEST_DELAY_S
            ),
        )
        self._children: dict[int, Child] = {}
        self._unborn: dict[int, str] = {}  # processes that could not be started, and why
        self._ended = Counts(0, 0, 0)
        self._restarts = 0
        self._failure: Failed | None = None  # the last one
        self._selector = selectors.DefaultSelector()
        # Requests wake the one place where we wait.
        self._asked, self._ask = os.pipe()
        os.set_blocking(self._asked, False)
        os.set_blocking(self._ask, False)

    def ask(self, request: Request) -> None:
        """Ask for something.  After the end nothing happens."""
        with contextlib.suppress(OSError):
            os.write(self._ask, request.value)

    @property
    def fleet(self) -> Fleet:
        """How it stands; for the thread that runs."""
        workers = [
            Worker(c.place, c.pid, self._machine.phase(c.key).value, c.address, c.counts)
            for c in self._children.values()
        ]
        return Fleet(tuple(sorted(workers, key=lambda w: w.place)), self._ended, self._restarts)

    def run(self) -> None:
        """Start the workers; return when all have left because it was asked for.

        Raises:
            EtcdGrpcError: None is left that could serve; what the last of them said.
        """
        self._selector.register(self._asked, selectors.EVENT_READ, self._obey)
        try:
            self._do(self._machine.begin())
            while self._machine.outcome is None:
                for key, _ in self._selector.select(self._patience_s()):
                    key.data()
                self._reap()
                self._do(self._machine.tick(time.monotonic()))
            emit(events.WorkersEnded(str(self.fleet)))
        finally:
            self._close()
        if self._machine.outcome:
            raise self._error()

    def _reap(self) -> None:
        now = time.monotonic()
        unborn, self._unborn = self._unborn, {}
        for key, why in unborn.items():
            self._do(self._machine.exited(key, 1, now), why=f"its process cannot be started: {why}")
        for child in list(self._children.values()):
            if child.poll() is not None:
                self._bury(child)
            elif child.silent_since_s is not None and child.silent_since_s < now - _SILENT_S:
                child.signal(signal.SIGKILL)

    def _patience_s(self) -> float:
        if self._unborn or any(c.silent_since_s is not None for c in self._children.values()):
            return _LOOK_SOON_S
        due_s = self._machine.next_tick
        return _LOOK_EVERY_S if due_s is None else min(_LOOK_EVERY_S, max(0, due_s - time.monotonic()))

    def _close(self) -> None:
        for child in self._children.values():
            child.close()
        self._children.clear()
        self._selector.close()
        ask, self._ask = self._ask, -1
        os.close(ask)
        os.close(self._asked)

    def _error(self) -> errors.EtcdGrpcError:
        failure = self._failure
        if failure is None:
            return errors.WorkerError(
                "no worker is left: they ended again and again, see what they wrote above"
            )
        kind = getattr(errors, failure.kind, errors.EtcdGrpcError)
        error: errors.EtcdGrpcError = kind(failure.text)
        return error

    # What happens.

    def _obey(self) -> None:
        now = time.monotonic()
        for byte in os.read(self._asked, 100):
            request = Request(bytes([byte]))
            if request is Request.STOP:
                self._do(self._machine.stop(now))
            elif request is Request.ROLL:
                self._do(self._machine.roll())
            else:
                emit(events.WorkersCounted(str(self.fleet)))

    def _hear(self, child: Child) -> None:
        """Read what it says, until there is nothing more for now."""
        try:
            for message in child.received():
                self._take(child, message)
        except EOFError:
            child.silent_since_s = time.monotonic()
            self._selector.unregister(child.link)

    def _take(self, child: Child, message: FromWorker) -> None:
        now = time.monotonic()
        if isinstance(message, Loaded):
            self._do(self._machine.loaded(child.key, now))
        elif isinstance(message, Ready):
            child.address = message.address
            emit(events.WorkerReady(child.place, child.pid, message.address))
            self._do(self._machine.ready(child.key, now))
        elif isinstance(message, Failed):
            child.failure = self._failure = message
        elif isinstance(message, Counted):
            child.counts = message.counts

    def _copy(self, child: Child) -> None:
        """Write what it writes."""
        try:
            for line in child.written():
                _say(child.place, line)
        except EOFError:
            self._selector.unregister(child.output)

    def _bury(self, child: Child) -> None:
        """It has ended."""
        watched = self._selector.get_map()
        if child.link in watched:
            self._hear(child)
        if child.output in watched:
            self._copy(child)
        for line in child.unfinished():
            _say(child.place, line)
        for source in (child.link, child.output):
            if source in watched:
                self._selector.unregister(source)
        status = child.poll()
        assert status is not None
        self._ended = Counts(
            self._ended.calls + child.counts.calls, self._ended.failures + child.counts.failures, 0
        )
        hopeless = child.failure is not None and child.failure.kind in _HOPELESS
        effects = self._machine.exited(child.key, status, time.monotonic(), hopeless=hopeless)
        del self._children[child.key]
        why = child.failure.text if child.failure is not None else _ended(status)
        self._do(effects, child.pid, why)
        child.close()

    # What is done about it.

    def _do(self, effects: Iterable[Effect], gone: int = 0, why: str = "") -> None:
        """Carry out; ``gone`` is the number of a process that has ended, and ``why``."""
        for effect in list(effects):  # all that was decided, before anything else happens
            if isinstance(effect, Spawn):
                self._spawn(effect)
            elif isinstance(effect, Crashed):
                self._restarts += effect.again_in_s is not None
                emit(events.WorkerCrashed(effect.place, gone, why, effect.times, effect.again_in_s))
            elif isinstance(effect, RollEnded):
                emit(events.WorkersRolled(effect.failed_place))
            elif effect.key in self._children:
                self._do_to(self._children[effect.key], effect)

    def _do_to(self, child: Child, effect: Go | Stop | Hurry | Kill) -> None:
        if isinstance(effect, Go):
            child.send(GoMessage())
        elif isinstance(effect, Kill):
            child.signal(signal.SIGKILL)
        else:
            child.send(LeaveMessage() if isinstance(effect, Stop) else HurryMessage())
            if not child.address:  # it does not listen yet
                child.signal(signal.SIGTERM)

    def _spawn(self, effect: Spawn) -> None:
        try:
            child = Child(effect.key, self._orders[effect.place])
        except OSError as error:  # no memory, too many processes: the others serve on
            self._unborn[effect.key] = error.strerror or str(error)
            return
        self._children[child.key] = child
        self._selector.register(child.link, selectors.EVENT_READ, lambda: self._hear(child))
        self._selector.register(child.output, selectors.EVENT_READ, lambda: self._copy(child))


def _ended(status: int) -> str:
    """An exit status in words."""
    if status >= 0:
        return f"it ended with status {status}"
    try:
        return f"it was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"it was ended by signal {-status}"


def _say(place: int, line: str) -> None:
    # A terminal that was closed must not keep the workers from serving.
    with contextlib.suppress(OSError, ValueError):
        print(f"worker {place} | {line}", file=sys.stderr, flush=True)
