"""An echo server that registers itself: ``python -m benchmarks.instance SERVICE ETCD``.

It prints its port once it is registered.  SIGTERM makes it leave as a server should: withdrawn from
etcd first, while it still serves, then stopped.
"""

from __future__ import annotations

import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc

import etcd_grpc
from benchmarks.echo_server import Echo

__all__: list[str] = []

_THREADS = 8
_GRACE_S = 5.0


def _main(service: str, etcd: str) -> None:
    told = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: told.set())
    echo = Echo()
    server = grpc.server(
        ThreadPoolExecutor(_THREADS), handlers=[echo], options=[("grpc.so_reuseport", 0)]
    )
    echo.port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with etcd_grpc.register(service, address=f"127.0.0.1:{echo.port}", etcd=etcd):
        print(echo.port, flush=True)
        told.wait()
    server.stop(_GRACE_S).wait()


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2])
