"""Ports on the loopback interface that stay ours while nobody listens on them.

A port must keep belonging to a member while that member is dead, or another program (another test
process, say) could take it before the restart.  A socket that is bound but does not listen does
that: with ``SO_REUSEADDR`` on both, Linux lets etcd (a Go program always sets it) bind and listen
beside it, and refuses everybody who asks for the port exclusively, as we do when we look for a free
one.  Nobody gets it by chance either: candidates lie below the range from which the kernel takes
the ports of outgoing connections.
"""

from __future__ import annotations

import contextlib
import random
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from etcd_grpc.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["LOOPBACK", "Reservation", "reserve", "reserve_free"]

LOOPBACK = "127.0.0.1"
_LOWEST = 10240  # below are the well-known ports of databases, proxies and etcd itself
_USUAL_EPHEMERAL = 32768  # Linux's default first port of outgoing connections
_HIGHEST = 65536
_ATTEMPTS = 2000


@dataclass(frozen=True, slots=True)
class Reservation:
    """Ports that are held until :meth:`release`."""

    ports: tuple[int, ...]
    _sockets: tuple[socket.socket, ...]

    def release(self) -> None:
        """Let everybody have the ports again; harmless when repeated."""
        for sock in self._sockets:
            sock.close()


def reserve(ports: Sequence[int]) -> Reservation:
    """Hold exactly these ports, also where connections linger in TIME_WAIT.

    Raises:
        ConfigurationError: another program listens on one, or we may not have it.
    """
    with contextlib.ExitStack() as undo:
        sockets = []
        for port in ports:
            sock = undo.enter_context(socket.socket())
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind((LOOPBACK, port))
            except (OSError, OverflowError) as error:
                reason = getattr(error, "strerror", None) or error
                message = f"cannot use port {port} on {LOOPBACK}: {reason}"
                raise ConfigurationError(message) from error
            sockets.append(sock)
        undo.pop_all()
    return _held(sockets)


def reserve_free(count: int, rng: random.Random | None = None) -> Reservation:
    """Hold ``count`` ports that nobody uses.

    ``rng`` draws the candidates; by default from the system, so that processes which were forked
    from one another do not draw the same.

    Raises:
        ConfigurationError: not that many free ports were found.
    """
    rng = rng or random.SystemRandom()
    candidates = _candidates()
    found: list[socket.socket] = []
    for _ in range(_ATTEMPTS):
        if len(found) == count:
            return _held(found)
        sock = socket.socket()
        try:
            # Without SO_REUSEADDR, so that a port which another cluster holds counts as taken.
            sock.bind((LOOPBACK, rng.choice(candidates)))
        except OSError:
            sock.close()
        else:
            found.append(sock)
    for sock in found:
        sock.close()
    raise ConfigurationError(f"found no {count} free ports on {LOOPBACK} in {_ATTEMPTS} tries")


def _held(sockets: Sequence[socket.socket]) -> Reservation:
    reservation = Reservation(
        ports=tuple(sock.getsockname()[1] for sock in sockets), _sockets=tuple(sockets)
    )
    for sock in sockets:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if sys.platform != "linux":
        reservation.release()  # elsewhere a bound socket would keep etcd out as well
    return reservation


def _candidates() -> range:
    ephemeral = _USUAL_EPHEMERAL
    with contextlib.suppress(OSError, ValueError, IndexError):
        text = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii")
        ephemeral = int(text.split()[0])
    if ephemeral - _LOWEST < _ATTEMPTS:
        return range(_LOWEST, _HIGHEST)  # the machine left no room below
    return range(_LOWEST, ephemeral)
