"""The echo server of ``echo_server.py``, served by ``etcd_grpc.serve`` or its asyncio twin.

    python serve_server.py --service NAME [--aio] [--deaf] [--json '{"settle_s": 1}']

Prints ``ready ADDRESS``.  ``/echo/Sleep`` takes as many seconds as it is told (its initial metadata
comes at once), ``/echo/Block`` blocks the whole event loop for them, ``/echo/Stream`` sends a message
every 50 ms until it has lasted so long.
``--deaf``: no signal interrupts what the main thread waits for, as if each came too early.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from typing import Any

import grpc

import etcd_grpc

# Its address.  Clients know it a moment earlier than this program: their calls wait.
ADDRESS: Future[str] = Future()


def _reply(request: bytes) -> bytes:
    return ADDRESS.result().encode() + b" " + request


async def _async_reply(request: bytes) -> bytes:
    await asyncio.wrap_future(ADDRESS)
    return _reply(request)


class Echo:
    def echo(self, request: bytes, context: Any) -> bytes:
        return _reply(request)

    def sleep(self, request: bytes, context: Any) -> bytes:
        context.send_initial_metadata(())
        time.sleep(float(request))
        return _reply(request)

    def stream(self, request: bytes, context: Any) -> Iterator[bytes]:
        end = time.monotonic() + float(request)
        while time.monotonic() < end:
            yield _reply(request)
            time.sleep(0.05)


class AsyncEcho:
    async def echo(self, request: bytes, context: Any) -> bytes:
        return await _async_reply(request)

    async def sleep(self, request: bytes, context: Any) -> bytes:
        await context.send_initial_metadata(())
        await asyncio.sleep(float(request))
        return await _async_reply(request)

    async def block(self, request: bytes, context: Any) -> bytes:
        time.sleep(float(request))  # what it is for
        return await _async_reply(request)

    async def stream(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        end = time.monotonic() + float(request)
        while time.monotonic() < end:
            yield await _async_reply(request)
            await asyncio.sleep(0.05)


def add(server: Any, echo: Any) -> None:
    handlers = {
        "UnaryUnary": grpc.unary_unary_rpc_method_handler(echo.echo),
        "Sleep": grpc.unary_unary_rpc_method_handler(echo.sleep),
        "Stream": grpc.unary_stream_rpc_method_handler(echo.stream),
    }
    if hasattr(echo, "block"):
        handlers["Block"] = grpc.unary_unary_rpc_method_handler(echo.block)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("echo", handlers),))


def ready(life: Any) -> None:
    ADDRESS.set_result(life.instances[0].address)
    print("ready", ADDRESS.result(), flush=True)


def ready_and_deaf(life: Any) -> None:
    # Other threads take the signals; their handlers run in this one all the same, once it runs.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    ready(life)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--service", action="append", required=True)
    parser.add_argument("--aio", action="store_true")
    parser.add_argument("--deaf", action="store_true")
    parser.add_argument("--json", default="{}", help="settings of serve")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    settings = {"service": arguments.service, **json.loads(arguments.json)}
    on_ready = ready_and_deaf if arguments.deaf else ready
    try:
        if arguments.aio:
            asyncio.run(
                etcd_grpc.aio.serve(lambda s: add(s, AsyncEcho()), on_ready=on_ready, **settings)
            )
        else:
            etcd_grpc.serve(lambda s: add(s, Echo()), on_ready=on_ready, **settings)
    except etcd_grpc.EtcdGrpcError as error:
        print("refused", type(error).__name__, error, flush=True)
        sys.exit(1)
    print("ended", flush=True)


if __name__ == "__main__":
    main()
