"""What a server is made of in both worlds: options, a port, and the services that gRPC itself brings.

The rule: the port is ours alone, unless processes are told to share it.  A port that somebody else has
is a clear error, before anything is registered.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from etcd_grpc.errors import ConfigurationError, MissingExtraError
from etcd_grpc.server.options import ServeOptions, bracketed
from etcd_grpc.server.tls import ServerTls

__all__ = [
    "HEALTH",
    "add_diagnostics",
    "bind",
    "note_services",
    "secured",
    "server_options",
    "why_not",
]

HEALTH = "grpc.health.v1.Health"

_HINTS = {
    errno.EADDRINUSE: "another process listens there: end it, or take another port (0: a free one)",
    errno.EACCES: "this user may not: ports below 1024 need a privilege",
    errno.EADDRNOTAVAIL: "this host has no such address: 0.0.0.0 listens on all that it has",
}


def server_options(options: ServeOptions) -> list[tuple[str, Any]]:
    """gRPC's options; those of the user come later and win."""
    return [("grpc.so_reuseport", int(options.share_port)), *options.options]


def note_services(server: Any) -> list[str]:
    """A list that gets the name of every gRPC service that is added to ``server`` from now on."""
    names: list[str] = []
    add: Callable[[Any], object] = server.add_generic_rpc_handlers

    def add_and_note(handlers: Any) -> None:
        handlers = tuple(handlers)
        names.extend(h.service_name() for h in handlers if isinstance(h, grpc.ServiceRpcHandler))
        add(handlers)

    # gRPC does not tell what a server offers; generated code adds it by this method of the instance.
    server.add_generic_rpc_handlers = add_and_note
    return names


@contextlib.contextmanager
def secured(options: ServeOptions) -> Iterator[grpc.ServerCredentials | None]:
    """With what to listen; certificates on disk are followed until the end of the block.

    Raises:
        ConfigurationError: They cannot be used.
    """
    if isinstance(options.credentials, ServerTls):
        with options.credentials.followed() as credentials:
            yield credentials
    else:
        yield options.credentials


def bind(server: Any, options: ServeOptions, credentials: grpc.ServerCredentials | None) -> int:
    """Listen; return the port.

    Raises:
        ConfigurationError: It cannot be had; the message says why.
    """
    where = f"{bracketed(options.host)}:{options.port}"
    try:
        if credentials is None:
            port = server.add_insecure_port(where)
        else:
            port = server.add_secure_port(where, credentials)
    except RuntimeError as error:
        why = why_not(options.host.strip("[]"), options.port) or str(error)
        raise ConfigurationError(f"cannot listen on {where}: {why}") from None
    return int(port)


def add_diagnostics(server: Any, options: ServeOptions, names: list[str]) -> None:
    """Reflection and channelz, as far as they are wanted and there.

    Raises:
        MissingExtraError: One of them was asked for and is not installed.
    """
    if options.channelz and "grpc.channelz.v1.Channelz" not in names:
        try:
            from grpc_channelz.v1 import channelz  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise _missing("channelz", "grpcio-channelz") from error
        channelz.add_channelz_servicer(server)
    if options.reflection is not False:
        try:
            from grpc_reflection.v1alpha import reflection  # noqa: PLC0415 - an extra
        except ImportError as error:
            if options.reflection:
                raise _missing("reflection", "grpcio-reflection") from error
            return
        if reflection.SERVICE_NAME not in names:
            reflection.enable_server_reflection((*names, reflection.SERVICE_NAME), server)


def _missing(what: str, package: str) -> MissingExtraError:
    return MissingExtraError(f"{what} needs {package}: pip install 'etcd-grpc[server]'")


def why_not(host: str, port: int) -> str:
    """Why nobody can listen there, as the system says it; gRPC says only that it is so."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, where in found:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(where)
                probe.listen()
    except OSError as error:
        hint = _HINTS.get(error.errno or 0)
        return f"{error.strerror} ({hint})" if hint else str(error)
    return ""
