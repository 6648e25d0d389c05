"""A greeter that registers itself in etcd.  Try it: python server.py --port 50051"""

import argparse
import signal
import sys
from concurrent import futures

import grpc
import helloworld_pb2
import helloworld_pb2_grpc

import etcd_grpc


class Greeter(helloworld_pb2_grpc.GreeterServicer):
    instance = ""

    def SayHello(self, request, context):  # noqa: N802, ARG002
        return helloworld_pb2.HelloReply(message=f"Hello, {request.name}!", instance=self.instance)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="where to listen (default: %(default)s)")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--ttl", type=int, default=10, help="lease TTL in seconds")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # leave the with block, and so etcd

    greeter = Greeter()
    server = grpc.server(futures.ThreadPoolExecutor(), options=[("grpc.so_reuseport", 0)])
    port = server.add_insecure_port(f"{arguments.host}:{arguments.port}")
    greeter.instance = f"{arguments.host}:{port}"
    helloworld_pb2_grpc.add_GreeterServicer_to_server(greeter, server)
    server.start()
    try:
        with etcd_grpc.register("helloworld.Greeter", port=port, ttl_s=arguments.ttl) as registration:
            greeter.instance = registration.instance.address
            print(f"serving on port {port}, registered as {greeter.instance}", flush=True)
            server.wait_for_termination()
    except (KeyboardInterrupt, SystemExit):
        print("withdrawn; finishing the calls under way", flush=True)
    finally:
        server.stop(grace=5).wait()


if __name__ == "__main__":
    main()
