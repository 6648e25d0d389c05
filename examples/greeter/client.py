"""Calls the greeter, and tells which instance answered.  Try it: python client.py --calls 6"""

import argparse
import contextlib
import time

import helloworld_pb2
import helloworld_pb2_grpc

import etcd_grpc


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=0, help="how many; 0 goes on until Ctrl-C")
    parser.add_argument("--interval", type=float, default=0.5, help="seconds between two calls")
    arguments = parser.parse_args()

    with etcd_grpc.insecure_channel("etcd:///helloworld.Greeter") as channel:
        stub = helloworld_pb2_grpc.GreeterStub(channel)
        made = 0
        while not arguments.calls or made < arguments.calls:
            reply = stub.SayHello(helloworld_pb2.HelloRequest(name="etcd"), timeout=5)
            print(f"{reply.instance}: {reply.message}", flush=True)
            made += 1
            time.sleep(arguments.interval)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
