"""An echo server under ``etcd_grpc.serve``: ``python -m benchmarks.served '{"service": "x"}'``.

With ``"aio": true`` in the order it is the asyncio twin's; what else stands there are its arguments.
It prints its port when clients can find it, and ends in order at SIGTERM.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from typing import Any

import grpc

import etcd_grpc
from etcd_grpc.model import split_address

__all__ = ["ECHO", "SLEEP", "add_servicers"]

ECHO = "/rolling/Echo"
SLEEP = "/rolling/Sleep"  # takes as many seconds as it is told; its initial metadata comes at once


def add_servicers(server: Any) -> None:
    """For ``serve``."""

    def sleep(request: bytes, context: Any) -> bytes:
        context.send_initial_metadata(())
        time.sleep(float(request))
        return request

    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "Echo": grpc.unary_unary_rpc_method_handler(lambda request, _context: request),
        "Sleep": grpc.unary_unary_rpc_method_handler(sleep),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("rolling", handlers),))


def _add_aio(server: Any) -> None:
    async def echo(request: bytes, _context: Any) -> bytes:
        return request

    async def sleep(request: bytes, context: Any) -> bytes:
        await context.send_initial_metadata(())
        await asyncio.sleep(float(request))
        return request

    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "Echo": grpc.unary_unary_rpc_method_handler(echo),
        "Sleep": grpc.unary_unary_rpc_method_handler(sleep),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("rolling", handlers),))


def _ready(life: Any) -> None:
    print(split_address(life.instances[0].address)[1], flush=True)


def _main(order: str) -> None:
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    settings: dict[str, Any] = json.loads(order)
    if settings.pop("aio", False):
        asyncio.run(etcd_grpc.aio.serve(_add_aio, on_ready=_ready, **settings))
    else:
        etcd_grpc.serve(add_servicers, on_ready=_ready, **settings)


if __name__ == "__main__":
    _main(sys.argv[1])
