"""The same greeter for asyncio.  Try it: python aio_server.py --port 50052"""

import argparse
import asyncio
import signal

import grpc
import helloworld_pb2
import helloworld_pb2_grpc

import etcd_grpc


class Greeter(helloworld_pb2_grpc.GreeterServicer):
    instance = ""

    async def SayHello(self, request, context):  # noqa: N802, ARG002
        return helloworld_pb2.HelloReply(message=f"Hello, {request.name}!", instance=self.instance)


async def serve(host: str, port: int, ttl_s: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    greeter = Greeter()
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    port = server.add_insecure_port(f"{host}:{port}")
    greeter.instance = f"{host}:{port}"
    helloworld_pb2_grpc.add_GreeterServicer_to_server(greeter, server)
    await server.start()
    try:
        async with etcd_grpc.aio.register("helloworld.Greeter", port=port, ttl_s=ttl_s) as registration:
            greeter.instance = registration.instance.address
            print(f"serving on port {port}, registered as {greeter.instance}", flush=True)
            await stop.wait()
        print("withdrawn; finishing the calls under way", flush=True)
    finally:
        await server.stop(grace=5)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="where to listen (default: %(default)s)")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--ttl", type=int, default=10, help="lease TTL in seconds")
    arguments = parser.parse_args()
    asyncio.run(serve(arguments.host, arguments.port, arguments.ttl))
