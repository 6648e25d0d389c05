"""A server whose calls take time but no CPU: ``python -m benchmarks.timed_server MS CONCURRENCY``.

Each call sleeps for MS milliseconds; CONCURRENCY of them do so at once, the others wait for their turn.
So a machine with few cores can stand for many servers, and each has a capacity that is known exactly.
It binds a free port of 127.0.0.1, prints it on a line of its own and serves until it is stopped.
"""

from __future__ import annotations

import asyncio
import sys

import grpc

__all__: list[str] = []


class _Timed(grpc.GenericRpcHandler):
    """Every method there is."""

    def __init__(self, service_s: float, concurrency: int) -> None:
        self._service_s = service_s
        self._turns = asyncio.Semaphore(concurrency)

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[bytes, bytes]:
        del handler_call_details
        return grpc.unary_unary_rpc_method_handler(self._answer)

    async def _answer(self, request: bytes, _context: object) -> bytes:
        async with self._turns:
            await asyncio.sleep(self._service_s)
        return request


async def _main(service_ms: float, concurrency: int) -> None:
    server = grpc.aio.server(
        handlers=[_Timed(service_ms / 1000, concurrency)], options=[("grpc.so_reuseport", 0)]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(_main(float(sys.argv[1]), int(sys.argv[2])))
