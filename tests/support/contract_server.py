"""A server in its own process that shows a client everything that arrives.

    python contract_server.py [--certificate PEM --key PEM]

Prints ``ready ADDRESS [TLS-ADDRESS]``.  Every answer carries initial and trailing metadata, text and
binary, whether it succeeds or not; what happens to a call that hangs can be asked for by its name.
"""

from __future__ import annotations

import argparse
import collections
import json
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any, NoReturn

import grpc

INITIAL = (("initial", "one"), ("initial-bin", b"\x00\xff"))
TRAILING = (("trailing", "two"), ("trailing-bin", b"\x01\xfe"))


class Contract(grpc.GenericRpcHandler):
    """``/contract/NAME``; requests and responses are bytes."""

    def __init__(self) -> None:
        self._events: dict[str, list[str]] = collections.defaultdict(list)
        self._let_go: dict[bytes, threading.Event] = collections.defaultdict(threading.Event)
        self._lock = threading.Lock()  # guards _events and _let_go
        uu, us = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
        su, ss = grpc.stream_unary_rpc_method_handler, grpc.stream_stream_rpc_method_handler
        self._methods: dict[str, Any] = {
            "/contract/Echo": uu(self.echo),
            "/helloworld.Greeter/SayHello": uu(self.echo),  # both messages look the same on the wire
            "/contract/Repeat": us(self.repeat),
            "/contract/Join": su(self.join),
            "/contract/EchoAll": ss(self.echo_all),
            "/contract/Seen": uu(self.seen),
            "/contract/Abort": uu(self.abort),
            "/contract/AbortRepeat": us(self.abort_repeat),
            "/contract/AbortJoin": su(self.abort_join),
            "/contract/AbortEchoAll": ss(self.abort_echo_all),
            "/contract/Hang": uu(self.hang),
            "/contract/HangRepeat": us(self.hang_repeat),
            "/contract/HangJoin": su(self.hang_join),
            "/contract/HangEchoAll": ss(self.hang_echo_all),
            "/contract/SeenStream": us(self.seen_stream),
            "/contract/Sleep": uu(self.sleep),
            "/contract/Events": uu(self.events),
            "/contract/Hold": uu(self.hold),
            "/contract/Release": uu(self.release),
        }

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return self._methods.get(handler_call_details.method)

    # Success.

    def echo(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        _metadata(context)
        return request

    def repeat(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        _metadata(context)
        for number in range(3):
            yield request + str(number).encode()

    def join(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        _metadata(context)
        return b",".join(requests)

    def echo_all(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        _metadata(context)
        yield from requests

    def seen(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        """What the server knows of the call, as JSON."""
        _metadata(context)
        return json.dumps(
            {
                "metadata": [
                    [name, value.hex() if isinstance(value, bytes) else value]
                    for name, value in context.invocation_metadata()
                ],
                "time_remaining": context.time_remaining(),
            }
        ).encode()

    def seen_stream(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        yield self.seen(request, context)

    def sleep(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        _metadata(context)
        time.sleep(float(request))
        return b"slept"

    def hold(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        """Answers once the call of this name is released, which may have been before."""
        _metadata(context)
        self._release_of(request).wait(30)
        return b"released"

    def release(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self._release_of(request).set()
        return b""

    def _release_of(self, name: bytes) -> threading.Event:
        with self._lock:
            return self._let_go[name]

    # Failure.

    def abort(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        _metadata(context)
        _abort(request, context)

    def abort_repeat(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        _metadata(context)
        yield request
        _abort(request, context)

    def abort_join(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        return self.abort(list(requests)[-1], context)

    def abort_echo_all(
        self, requests: Iterator[bytes], context: grpc.ServicerContext
    ) -> Iterator[bytes]:
        _metadata(context)
        request = next(requests)
        yield request
        _abort(request, context)

    # Until the client goes away.  The (first) request is the call's name.

    def hang(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        _metadata(context)
        self._hang(request, context)
        return b"never"

    def hang_repeat(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        _metadata(context)
        yield request
        self._hang(request, context)

    def hang_join(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        _metadata(context)
        self._hang(next(requests), context)
        return b"never"

    def hang_echo_all(
        self, requests: Iterator[bytes], context: grpc.ServicerContext
    ) -> Iterator[bytes]:
        _metadata(context)
        request = next(requests)
        yield request
        self._hang(request, context)

    def events(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        with self._lock:
            return json.dumps(self._events[request.decode()]).encode()

    def _hang(self, name: bytes, context: grpc.ServicerContext) -> None:
        gone = threading.Event()
        if not context.add_callback(gone.set):
            gone.set()
        self._note(name, "began")
        gone.wait()
        self._note(name, "ended")

    def _note(self, name: bytes, event: str) -> None:
        with self._lock:
            self._events[name.decode()].append(event)


def _metadata(context: grpc.ServicerContext) -> None:
    context.send_initial_metadata(INITIAL)
    context.set_trailing_metadata(TRAILING)


def _abort(request: bytes, context: grpc.ServicerContext) -> NoReturn:
    """The request says with which code, and after a blank with which details."""
    code, _, details = request.decode().partition(" ")
    context.abort(grpc.StatusCode[code], details)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--certificate", type=Path)
    parser.add_argument("--key", type=Path)
    arguments = parser.parse_args()
    server = grpc.server(
        futures.ThreadPoolExecutor(64), handlers=[Contract()], options=[("grpc.so_reuseport", 0)]
    )
    ports = [server.add_insecure_port(f"127.0.0.1:{arguments.port}")]
    if arguments.key:
        pair = (arguments.key.read_bytes(), arguments.certificate.read_bytes())
        ports.append(server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair])))
    server.start()
    print("ready", *(f"127.0.0.1:{port}" for port in ports), flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
