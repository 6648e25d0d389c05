"""A TCP proxy that can be broken: the network between a client and a server, as a test wants it.

It forwards bytes and knows nothing of what they mean, so it stands in front of etcd and of any gRPC
server alike.  Every fault is undone by :meth:`Proxy.mend`.  What the parties see:

============================  ===================  =====================  =========================
fault                         existing             new connections        in real life
============================  ===================  =====================  =========================
:meth:`~Proxy.cut`            reset                refused                the process died
:meth:`~Proxy.refuse`         go on                refused                it stopped listening
:meth:`~Proxy.stall`          open and silent      accepted and silent    packets lost, a hung host
:meth:`~Proxy.half_open`      open and silent,     refused                the host lost power
                              for the server gone
:meth:`~Proxy.delay`          late                 late                   a long way
:meth:`~Proxy.reset_...`      reset                as before              a firewall forgot them
:meth:`~Proxy.redirect`       go on                another server         etcd was replaced
============================  ===================  =====================  =========================

All sockets belong to one event loop in a thread of its own (``etcd-grpc-proxy``); the methods may be
called from any thread and return when the fault is in force.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from typing import TYPE_CHECKING, Self, TypeVar

from etcd_grpc.devcluster import ports
from etcd_grpc.devcluster.link import Link, Target
from etcd_grpc.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import TracebackType
    from typing import Any

__all__ = ["Proxy"]

_T = TypeVar("_T")
_BACKLOG = 128
_ACCEPT_AGAIN_S = 0.1
_SCHEMES = ("http://", "https://")
_NOT_RUNNING = "the proxy does not run: use it in a with block"

_log = logging.getLogger("etcd_grpc.devcluster")


class Proxy:
    """Listens on a loopback port and forwards every connection to ``target``.

    ``target``: ``host:port``, with or without ``http://`` or ``https://``, which the proxy's own
    address then has too.  Nobody need listen there yet.  ``port``: where to listen, instead of a
    free port.  A context manager; outside of it there is neither a port nor a thread.

    Raises:
        ConfigurationError: the target is not an address; on entering, the port is taken.
    """

    def __init__(self, target: str, *, port: int | None = None) -> None:
        self._scheme = _scheme(target)
        self._target = _resolved(target)
        self._wanted_port = port
        self._reservation: ports.Reservation | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._links: dict[Link, asyncio.Task[None]] = {}
        self._listener: socket.socket | None = None
        self._silenced: Callable[[int], bool] = _nobody
        self._delay_s = 0.0
        self._accepted = 0

    @property
    def port(self) -> int:
        """The port on 127.0.0.1; ours until the end, also while new connections are refused.

        Raises:
            RuntimeError: the proxy does not run.
        """
        if self._reservation is None:
            raise RuntimeError(_NOT_RUNNING)
        return self._reservation.ports[0]

    @property
    def address(self) -> str:
        """What clients connect to instead of the target.  Raises as :attr:`port`."""
        return f"{self._scheme}{ports.LOOPBACK}:{self.port}"

    @property
    def accepted(self) -> int:
        """How many connections have been accepted so far."""
        return self._accepted

    @property
    def open_connections(self) -> int:
        """How many connections are open at the client's end, as far as the client has told."""
        return self._do(self._count())

    def start(self) -> Self:
        """What entering the context does.

        Raises:
            ConfigurationError: the port is taken.
            RuntimeError: started already.
        """
        if self._reservation is not None:
            raise RuntimeError("the proxy has been started already")
        wanted = self._wanted_port
        # Held while nobody listens, so that a proxy that refuses keeps its place.
        self._reservation = ports.reserve_free(1) if wanted is None else ports.reserve([wanted])
        self._loop = loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=loop.run_forever, daemon=True, name="etcd-grpc-proxy")
        self._thread.start()
        try:
            self._do(self._listen())
        except OSError as error:
            self.close()
            raise ConfigurationError(f"cannot listen on port {wanted}: {error}") from error
        return self

    def close(self) -> None:
        """Reset every connection and free the port.  Harmless when repeated."""
        if self._reservation is None or self._loop is None or self._thread is None:
            return
        self._do(self._refuse(), self._reset())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._reservation.release()
        self._reservation = self._loop = self._thread = None

    def cut(self) -> None:
        """Reset every connection and refuse new ones."""
        self._do(self._refuse(), self._reset())

    def refuse(self) -> None:
        """Refuse new connections; those that exist go on."""
        self._do(self._refuse())

    def stall(self, whom: Callable[[int], bool] | None = None) -> None:
        """Accept, and forward nothing any more, in either direction; close nothing.

        What is sent meanwhile (up to 4 MiB each way, then the sender must wait) arrives after
        :meth:`mend`.  ``whom`` restricts that to some connections: it is asked once for each, on
        the proxy's thread, with the client's port.
        """
        self._do(self._silence(whom or _everybody))

    def half_open(self) -> None:
        """Make the server's side vanish: the server sees a reset, clients see nothing at all.

        Their connections stay open and silent; new ones are refused.  After :meth:`mend` the next
        byte on such a connection is answered by a reset, as by a host that has booted again.
        """
        self._do(self._refuse(), self._vanish())

    def delay(self, seconds: float) -> None:
        """Deliver everything this much later, in each direction; it takes no throughput away."""
        self._do(self._delay(seconds))

    def redirect(self, target: str) -> None:
        """Forward new connections to another target; those that exist stay where they are.

        Raises:
            ConfigurationError: it is not an address.
        """
        self._do(self._retarget(_resolved(target)))

    def reset_connections(self) -> int:
        """Reset every connection; new ones are accepted.  Returns how many there were."""
        return self._do(self._reset())

    def mend(self) -> None:
        """Undo all faults: listen, and forward without delay.  The target stays as it is."""
        self._do(self._delay(0.0), self._silence(_nobody), self._revive(), self._listen())

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _do(self, *steps: Coroutine[Any, Any, _T]) -> _T:
        """Run the steps on the proxy's thread, one after another; return what the last returns."""

        async def in_turn() -> _T:
            return [await step for step in steps][-1]

        if self._loop is None:
            for step in steps:
                step.close()
            raise RuntimeError(_NOT_RUNNING)
        return asyncio.run_coroutine_threadsafe(in_turn(), self._loop).result()

    # The rest runs on the proxy's thread only.

    async def _listen(self) -> None:
        if self._listener is not None:
            return
        listener = socket.socket()
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setblocking(False)
            listener.bind((ports.LOOPBACK, self.port))
            listener.listen(_BACKLOG)
        except OSError:
            listener.close()
            raise
        self._listener = listener
        self._resume(listener)

    async def _refuse(self) -> int:
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        return 0

    def _resume(self, listener: socket.socket) -> None:
        if listener is self._listener:
            asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            client, (_, port) = listener.accept()
        except BlockingIOError:  # it was reset before we came
            return
        except OSError as error:  # no descriptor left, most likely
            _log.warning("the proxy at %s cannot accept a connection: %s", self.address, error)
            loop.remove_reader(listener)
            loop.call_later(_ACCEPT_AGAIN_S, self._resume, listener)
            return
        client.setblocking(False)
        self._accepted += 1
        link = Link(client, self._target, port, delay_s=self._delay_s)
        link.silence(self._silenced(port))
        self._links[link] = task = loop.create_task(link.run())
        task.add_done_callback(lambda _: self._forget(link))

    def _forget(self, link: Link) -> None:
        del self._links[link]
        link.close()  # a task that is cancelled before its first step does nothing at all

    async def _silence(self, whom: Callable[[int], bool]) -> None:
        self._silenced = whom
        for link in self._links:
            link.silence(whom(link.port))

    async def _delay(self, seconds: float) -> None:
        self._delay_s = seconds
        for link in self._links:
            link.delay_s = seconds

    async def _retarget(self, target: Target) -> None:
        self._target = target

    async def _vanish(self) -> int:
        for link in self._links:
            link.lose_server()
        return 0

    async def _revive(self) -> None:
        for link in self._links:
            link.answer_with_reset()

    async def _reset(self) -> int:
        tasks = list(self._links.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        return len(tasks)

    async def _count(self) -> int:
        return sum(link.client_open for link in self._links)


def _scheme(target: str) -> str:
    return next((scheme for scheme in _SCHEMES if target.startswith(scheme)), "")


def _resolved(target: str) -> Target:
    """Family and address of ``host:port``, looked up once."""
    host, _, port = target.removeprefix(_scheme(target)).rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"cannot forward to {target!r}: {error}; use host:port") from error
    return found[0][0], found[0][4]


def _everybody(port: int) -> bool:
    del port
    return True


def _nobody(port: int) -> bool:
    del port
    return False
