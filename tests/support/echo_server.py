"""A server in its own process that answers in all four shapes and says who it is.

    python echo_server.py [--port P] [--register SERVICE --id ID --ttl N] [--tls FOLDER [--mutual]]

Prints ``ready ADDRESS``.  SIGTERM leaves in order: withdraw, finish, stop.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc

import etcd_grpc
from etcd_grpc.server.tls import ServerTls


class Echo(grpc.GenericRpcHandler):
    """``/echo/UnaryUnary`` and so on; replies are ``<address> <request>``."""

    def __init__(self) -> None:
        self.name = b""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        shapes = {
            "/echo/UnaryUnary": grpc.unary_unary_rpc_method_handler(self.unary_unary),
            "/echo/UnaryStream": grpc.unary_stream_rpc_method_handler(self.unary_stream),
            "/echo/StreamUnary": grpc.stream_unary_rpc_method_handler(self.stream_unary),
            "/echo/StreamStream": grpc.stream_stream_rpc_method_handler(self.stream_stream),
            "/echo/Slow": grpc.unary_unary_rpc_method_handler(self.slow),
            "/echo/Peer": grpc.unary_unary_rpc_method_handler(self.peer),
            "/echo/Abort": grpc.unary_unary_rpc_method_handler(self.abort),
        }
        return shapes.get(handler_call_details.method)

    def unary_unary(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        context.send_initial_metadata((("initial", "one"),))
        context.set_trailing_metadata((("trailing", "two"),))
        return self.name + b" " + request

    def unary_stream(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        for _ in range(3):
            yield self.name + b" " + request

    def stream_unary(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        return self.name + b" " + b",".join(requests)

    def stream_stream(
        self, requests: Iterator[bytes], context: grpc.ServicerContext
    ) -> Iterator[bytes]:
        for request in requests:
            yield self.name + b" " + request

    def slow(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        """Answers after so many seconds; a call that ends before takes no thread any more."""
        ended = threading.Event()
        if context.add_callback(ended.set):
            ended.wait(float(request))
        return self.name + b" slow"

    def peer(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        """The client's certificate, as PEM."""
        return b"".join(context.auth_context().get("x509_pem_cert", ()))

    def abort(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        code, _, details = request.decode().partition(" ")
        context.abort(grpc.StatusCode[code], details)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--register", default="")
    parser.add_argument("--id")
    parser.add_argument("--ttl", type=int, default=15)
    parser.add_argument("--tls", type=Path, help="a folder with tls.crt, tls.key and ca.crt")
    parser.add_argument("--mutual", action="store_true", help="clients need a certificate of ca.crt")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())

    echo = Echo()
    server = grpc.server(
        futures.ThreadPoolExecutor(16), handlers=[echo], options=[("grpc.so_reuseport", 0)]
    )
    bound = f"{arguments.host}:{arguments.port}"
    if arguments.tls is None:
        port = server.add_insecure_port(bound)
    else:
        names = [arguments.tls / name for name in ("tls.crt", "tls.key", "ca.crt")]
        tls = ServerTls(*names[:2], client_ca=names[2] if arguments.mutual else None)
        port = server.add_secure_port(bound, tls.credentials())
    address = f"{arguments.host}:{port}"
    echo.name = address.encode()
    server.start()
    try:
        if arguments.register:
            with etcd_grpc.register(
                arguments.register, address=address, id=arguments.id, ttl_s=arguments.ttl
            ):
                print("ready", address, flush=True)
                server.wait_for_termination()
        else:
            print("ready", address, flush=True)
            server.wait_for_termination()
    except SystemExit:
        pass
    finally:
        server.stop(grace=5).wait()


if __name__ == "__main__":
    main()
