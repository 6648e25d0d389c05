"""``serve`` with several workers: a process for each, and this one as their parent.

By default each worker is an instance of its own: its own port, its own registration.  With
``share_port`` all listen on one port, and the kernel spreads *connections* over them.  Each still
registers, so that the address stands in etcd for as long as any of them serves, and goes with the
last one; a client has a connection for each registration, and cannot know which worker is behind it.
So it cannot move away from one that leaves: a call that arrives as that one stops ends CANCELLED.
"""

from __future__ import annotations

import asyncio as aio
import contextlib
import dataclasses
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

from etcd_grpc.errors import ConfigurationError
from etcd_grpc.etcd.beside import in_thread
from etcd_grpc.server.binding import why_not
from etcd_grpc.server.options import ServeOptions, bracketed
from etcd_grpc.server.signals import done
from etcd_grpc.server.workers.job import Job, packed, preparation
from etcd_grpc.server.workers.link import Order
from etcd_grpc.server.workers.parent import Request, Workers

__all__ = ["supervise", "supervise_beside"]

_REQUESTS = {
    signal.SIGTERM: Request.STOP,
    signal.SIGINT: Request.STOP,
    signal.SIGHUP: Request.ROLL,
    signal.SIGUSR1: Request.TELL,
}


def supervise(job: Job) -> None:
    """Do ``job`` with as many workers as it says until SIGTERM or SIGINT; return when all have left.

    In the main thread SIGHUP replaces the workers one after another, and SIGUSR1 logs how they stand.

    Args:
        job: With a ``port`` and without ``share_port``, worker n listens on ``port + n``; with an
            ``id``, it is instance ``id-n``.

    Raises:
        ConfigurationError: An argument is wrong or cannot be taken to a worker, or a port is taken.
        EtcdError: The workers could not register.
        WorkerError: No worker is left.
    """
    with _planned(job) as family, _signals(family.ask):
        family.run()


async def supervise_beside(job: Job) -> None:
    """As ``supervise``, beside the running event loop; when cancelled, it lets the workers leave."""
    with _planned(job) as family, _signals(family.ask):
        running = aio.ensure_future(in_thread(family.run, "etcd-grpc-workers"))
        try:
            await done(running)
            running.result()
        except aio.CancelledError:
            family.ask(Request.STOP)
            await running
            raise


@contextlib.contextmanager
def _planned(job: Job) -> Iterator[Workers]:
    """The family, with its port kept for it if it has one."""
    options = job.options
    with contextlib.ExitStack() as stack:
        if options.share_port:
            options = dataclasses.replace(options, port=stack.enter_context(_kept_port(options)))
        prepared = preparation()
        each = [_of(options, place) for place in range(options.workers)]
        own_port = options.port != 0 and not options.share_port
        if own_port:
            _check_addresses(each)
        orders = [
            Order(place, prepared, packed(dataclasses.replace(job, options=own)))
            for place, own in enumerate(each)
        ]
        yield Workers(
            orders,
            exclusive=own_port or options.life.id is not None,
            grace_s=options.life.grace_s,
        )


def _of(options: ServeOptions, place: int) -> ServeOptions:
    """The options of one worker.

    Raises:
        ConfigurationError: There are not so many ports.
    """
    life = options.life
    if life.id is not None:
        life = dataclasses.replace(life, id=f"{life.id}-{place}")
    if options.port == 0 or options.share_port:
        return dataclasses.replace(options, life=life)
    last = options.port + options.workers - 1
    if last > 65535:
        raise ConfigurationError(
            f"{options.workers} workers from port {options.port} on would need port {last}; the last "
            "that there is is 65535"
        )
    return dataclasses.replace(options, life=life, port=options.port + place)


def _check_addresses(each: Sequence[ServeOptions]) -> None:
    """Raises ConfigurationError if workers with ports of their own would be told as one address."""
    addresses = {own.plans(own.port)[0].instance.address for own in each}
    if len(addresses) < len(each):
        raise ConfigurationError(
            f"all {len(each)} workers would be advertised as {addresses.pop()}: leave the port out, or "
            "let them share one (share_port, --shared-port)"
        )


@contextlib.contextmanager
def _kept_port(options: ServeOptions) -> Iterator[int]:
    """The port that workers share, kept from others while there is no worker.

    ``SO_REUSEPORT`` lets anybody of this user join, so it is asked for without it first.

    Raises:
        ConfigurationError: Somebody else listens there.
    """
    host = options.host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    why = why_not(host, options.port)
    if why:
        raise ConfigurationError(f"cannot listen on {bracketed(host)}:{options.port}: {why}")
    with socket.socket(family, socket.SOCK_STREAM) as keeper:
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            keeper.bind((host, options.port))  # and never listens: gets no connection
        except OSError as error:
            raise ConfigurationError(
                f"cannot listen on {bracketed(host)}:{options.port}: {error.strerror or error}"
            ) from error
        yield keeper.getsockname()[1]


@contextlib.contextmanager
def _signals(ask: Callable[[Request], object]) -> Iterator[None]:
    """Signals are requests for as long as the block lasts, if this is the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, _frame: FrameType | None) -> None:
        ask(_REQUESTS[signal.Signals(number)])

    before: dict[int, Any] = {number: signal.signal(number, handle) for number in _REQUESTS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
