"""A gRPC server with grpc.health.v1 that knows nothing of etcd.

    python health_program.py PORT [--cert FILE --key FILE --client-ca FILE]

Prints ``started PID`` and ``listening``.  SIGUSR1: NOT_SERVING, SIGUSR2: SERVING, of the server and of
"demo.Named".  The service "demo.Other" is NOT_SERVING always.
"""

from __future__ import annotations

import argparse
import os
import signal
from concurrent import futures
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--cert", type=Path)
    parser.add_argument("--key", type=Path)
    parser.add_argument("--client-ca", type=Path)
    arguments = parser.parse_args()
    servicer = health.HealthServicer()
    servicer.set("demo.Other", NOT_SERVING)
    wanted = SERVING

    def turn(number: int, frame: object) -> None:
        nonlocal wanted
        wanted = NOT_SERVING if number == signal.SIGUSR1 else SERVING

    signal.signal(signal.SIGUSR1, turn)
    signal.signal(signal.SIGUSR2, turn)
    print("started", os.getpid(), flush=True)
    server = grpc.server(futures.ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    address = f"127.0.0.1:{arguments.port}"
    if arguments.cert:
        ca = arguments.client_ca.read_bytes() if arguments.client_ca else None
        pair = (arguments.key.read_bytes(), arguments.cert.read_bytes())
        credentials = grpc.ssl_server_credentials([pair], ca, ca is not None)
        server.add_secure_port(address, credentials)
    else:
        server.add_insecure_port(address)
    server.start()
    print("listening", flush=True)
    while True:  # a handler must not take the servicer's lock: the main thread may hold it
        for name in ("", "demo.Named"):
            servicer.set(name, wanted)
        server.wait_for_termination(timeout=0.05)


if __name__ == "__main__":
    main()
