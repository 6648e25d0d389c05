"""A server in its own process whose answers carry load reports.

    python load_server.py WORLD [--capacity QPS]

WORLD is ``sync`` or ``aio``.  With a capacity it says that it is as full as its own calls a second
are a part of that.  Prints ``ready ADDRESS`` and serves until it is stopped.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent import futures
from typing import Any

import grpc

from etcd_grpc.server.orca import AsyncLoadInterceptor, LoadInterceptor, LoadReporter

REPORTER = LoadReporter(every_s=0.05, window_s=1.0)
WHERE = [b""]  # the address, once it is known
OPTIONS = [("grpc.so_reuseport", 0)]


class Handlers(grpc.GenericRpcHandler):
    """``/load/NAME``: the method of that name, which must be a handler already."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        service, _, name = handler_call_details.method[1:].rpartition("/")
        if service == "grpc.health.v1.Health":
            return self.plain
        return getattr(self, name, None)


class SyncHandlers(Handlers):
    def __init__(self, capacity: float) -> None:
        def plain(request: bytes, context: grpc.ServicerContext) -> bytes:
            fill(capacity)
            return b"%d %s" % (REPORTER.counts.in_flight, WHERE[0])

        def sets(request: bytes, context: grpc.ServicerContext) -> bytes:
            context.set_trailing_metadata((("mine", "1"), ("mine-bin", b"\x00\xff")))
            return request

        def reports(request: bytes, context: grpc.ServicerContext) -> bytes:
            context.set_trailing_metadata((("endpoint-load-metrics", "TEXT eps=77"),))
            return request

        def aborts(request: bytes, context: grpc.ServicerContext) -> bytes:
            context.abort(grpc.StatusCode[request.decode()], "no")
            raise AssertionError

        def sets_and_aborts(request: bytes, context: grpc.ServicerContext) -> bytes:
            context.set_trailing_metadata((("mine", "1"),))
            return aborts(request, context)

        def sets_code(request: bytes, context: grpc.ServicerContext) -> bytes:
            context.set_code(grpc.StatusCode[request.decode()])
            return b""

        def raises(request: bytes, context: grpc.ServicerContext) -> bytes:
            raise ValueError("broken")

        def streams(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
            yield request
            context.set_trailing_metadata((("mine", "1"),))
            yield request

        def stream_raises(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
            yield request
            raise ValueError("broken")

        self.plain = grpc.unary_unary_rpc_method_handler(plain)
        self.sets = grpc.unary_unary_rpc_method_handler(sets)
        self.reports = grpc.unary_unary_rpc_method_handler(reports)
        self.aborts = grpc.unary_unary_rpc_method_handler(aborts)
        self.sets_and_aborts = grpc.unary_unary_rpc_method_handler(sets_and_aborts)
        self.sets_code = grpc.unary_unary_rpc_method_handler(sets_code)
        self.raises = grpc.unary_unary_rpc_method_handler(raises)
        self.streams = grpc.unary_stream_rpc_method_handler(streams)
        self.stream_raises = grpc.unary_stream_rpc_method_handler(stream_raises)


class AsyncHandlers(Handlers):
    def __init__(self, capacity: float) -> None:
        async def plain(request: bytes, context: Any) -> bytes:
            fill(capacity)
            return b"%d %s" % (REPORTER.counts.in_flight, WHERE[0])

        async def sets(request: bytes, context: Any) -> bytes:
            context.set_trailing_metadata((("mine", "1"), ("mine-bin", b"\x00\xff")))
            return request

        async def reports(request: bytes, context: Any) -> bytes:
            context.set_trailing_metadata((("endpoint-load-metrics", "TEXT eps=77"),))
            return request

        async def aborts(request: bytes, context: Any) -> bytes:
            await context.abort(grpc.StatusCode[request.decode()], "no")
            raise AssertionError

        async def sets_and_aborts(request: bytes, context: Any) -> bytes:
            context.set_trailing_metadata((("mine", "1"),))
            return await aborts(request, context)

        async def sets_code(request: bytes, context: Any) -> bytes:
            context.set_code(grpc.StatusCode[request.decode()])
            return b""

        async def raises(request: bytes, context: Any) -> bytes:
            raise ValueError("broken")

        async def streams(request: bytes, context: Any) -> AsyncIterator[bytes]:
            yield request
            context.set_trailing_metadata((("mine", "1"),))
            yield request

        async def writes(request: bytes, context: Any) -> None:
            await context.write(request)
            context.set_trailing_metadata((("mine", "1"),))
            await context.write(request)

        async def stream_raises(request: bytes, context: Any) -> AsyncIterator[bytes]:
            yield request
            raise ValueError("broken")

        def plain_function(request: bytes, context: Any) -> bytes:
            return request

        def plain_generator(request: bytes, context: Any) -> Iterator[bytes]:
            yield request
            yield request

        self.plain = grpc.unary_unary_rpc_method_handler(plain)
        self.sets = grpc.unary_unary_rpc_method_handler(sets)
        self.reports = grpc.unary_unary_rpc_method_handler(reports)
        self.aborts = grpc.unary_unary_rpc_method_handler(aborts)
        self.sets_and_aborts = grpc.unary_unary_rpc_method_handler(sets_and_aborts)
        self.sets_code = grpc.unary_unary_rpc_method_handler(sets_code)
        self.raises = grpc.unary_unary_rpc_method_handler(raises)
        self.streams = grpc.unary_stream_rpc_method_handler(streams)
        self.writes = grpc.unary_stream_rpc_method_handler(writes)
        self.stream_raises = grpc.unary_stream_rpc_method_handler(stream_raises)
        self.plain_function = grpc.unary_unary_rpc_method_handler(plain_function)
        self.plain_generator = grpc.unary_stream_rpc_method_handler(plain_generator)


def fill(capacity: float) -> None:
    if capacity:
        REPORTER.set(application_utilization=REPORTER.report.rps_fractional / capacity)


def ready(port: int) -> None:
    WHERE[0] = b"127.0.0.1:%d" % port
    print("ready", WHERE[0].decode(), flush=True)


def serve_sync(capacity: float) -> None:
    server = grpc.server(
        futures.ThreadPoolExecutor(8),
        handlers=[SyncHandlers(capacity)],
        interceptors=[LoadInterceptor(REPORTER)],
        options=OPTIONS,
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    ready(port)
    server.wait_for_termination()


async def serve_aio(capacity: float) -> None:
    server = grpc.aio.server(
        migration_thread_pool=futures.ThreadPoolExecutor(2),
        handlers=[AsyncHandlers(capacity)],
        interceptors=[AsyncLoadInterceptor(REPORTER)],
        options=OPTIONS,
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    ready(port)
    await server.wait_for_termination()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("world", choices=["sync", "aio"])
    parser.add_argument("--capacity", type=float, default=0)
    arguments = parser.parse_args()
    if arguments.world == "aio":
        asyncio.run(serve_aio(arguments.capacity))
    else:
        serve_sync(arguments.capacity)


if __name__ == "__main__":
    main()
