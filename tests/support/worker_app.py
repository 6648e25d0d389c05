"""An application for workers: it says which process answered, and breaks when told to.

What it does when it is loaded and when it serves comes from the environment:

    APP_CRASH   numbers of the workers that end soon after their start, such as ``0,1``
    APP_THREAD  if set, a thread runs that has no end
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from typing import Any

import grpc

PLACE = os.environ.get("ETCD_GRPC_WORKER", "")
NOT_A_FUNCTION = 7


def unary_unary(request: bytes, context: grpc.ServicerContext) -> bytes:
    return b"%d %s" % (os.getpid(), PLACE.encode())


def say(line: str) -> None:
    """In one piece: ``print`` writes a line and its end apart, and other threads between them."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def slow(request: bytes, context: grpc.ServicerContext) -> bytes:
    say("sleeps")
    time.sleep(float(request))
    say("slept")  # which must not fail, whoever reads it
    return unary_unary(request, context)


def burn(request: bytes, context: grpc.ServicerContext) -> bytes:
    """Keeps a core busy for so many rounds."""
    total = 0
    for number in range(int(request)):
        total += number * number
    return unary_unary(request, context)


def die(request: bytes, context: grpc.ServicerContext) -> bytes:
    os.kill(os.getpid(), signal.SIGKILL)
    return b""


def speak(request: bytes, context: grpc.ServicerContext) -> bytes:
    say(request.decode())
    return b""


async def aio_unary_unary(request: bytes, context: Any) -> bytes:
    await asyncio.sleep(0)
    return unary_unary(request, context)


def add(server: Any, methods: dict[str, Any]) -> None:
    if PLACE and PLACE in os.environ.get("APP_CRASH", "").split(","):
        threading.Timer(0.3, os._exit, (3,)).start()
    if os.environ.get("APP_THREAD"):
        threading.Thread(target=time.sleep, args=(1000,)).start()
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(function) for name, function in methods.items()
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("echo", handlers),))


def add_servicers(server: grpc.Server) -> None:
    methods = {"UnaryUnary": unary_unary, "Slow": slow, "Burn": burn, "Die": die, "Speak": speak}
    add(server, methods)


async def add_async_servicers(server: grpc.aio.Server) -> None:
    add(server, {"UnaryUnary": aio_unary_unary})


def add_coroutines(server: grpc.aio.Server) -> None:
    add(server, {"UnaryUnary": aio_unary_unary})
