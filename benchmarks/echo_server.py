"""A gRPC server that answers every unary call with its request: ``python -m benchmarks.echo_server``.

It binds a free port on the host given as its argument, prints the port on a line of its own and
serves until it is stopped.  Messages are bytes as they come, so the cost of a call is gRPC's alone.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

import grpc

__all__ = ["WHERE", "Echo"]

WHERE = "/benchmark/Where"  # is answered with the server's port, whatever was asked

_THREADS = 4

_Handler: TypeAlias = "grpc.RpcMethodHandler[bytes, bytes]"


class Echo(grpc.GenericRpcHandler):
    """Every method there is."""

    def __init__(self) -> None:
        self.port = 0
        self._echo: _Handler = grpc.unary_unary_rpc_method_handler(lambda request, _context: request)
        self._where: _Handler = grpc.unary_unary_rpc_method_handler(
            lambda _request, _context: b"%d" % self.port
        )

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> _Handler:
        return self._where if handler_call_details.method == WHERE else self._echo


def _main(host: str) -> None:
    echo = Echo()
    server = grpc.server(
        ThreadPoolExecutor(_THREADS), handlers=[echo], options=[("grpc.so_reuseport", 0)]
    )
    echo.port = server.add_insecure_port(f"{host}:0")
    server.start()
    print(echo.port, flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    _main(sys.argv[1])
