"""What the workers of the benchmark ``workers`` serve: calls that each take a fixed time of CPU."""

from __future__ import annotations

import os
import time

import grpc

__all__ = ["BURN", "add_servicers"]

BURN = "/benchmark.Workers/Burn"  # milliseconds of CPU as text; answered with the process's number


def _burn(request: bytes, _context: grpc.ServicerContext) -> bytes:
    end = time.thread_time() + float(request) / 1000
    while time.thread_time() < end:
        sum(range(200))
    return b"%d" % os.getpid()


def add_servicers(server: grpc.Server) -> None:
    """For ``etcd-grpc serve``."""
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "Burn": grpc.unary_unary_rpc_method_handler(_burn)
    }
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("benchmark.Workers", handlers),)
    )
