"""The same client for asyncio: a hundred calls at once, and who answered how many."""

import asyncio
import collections

import helloworld_pb2
import helloworld_pb2_grpc

import etcd_grpc


async def main() -> None:
    async with etcd_grpc.aio.insecure_channel("etcd:///helloworld.Greeter") as channel:
        stub = helloworld_pb2_grpc.GreeterStub(channel)
        request = helloworld_pb2.HelloRequest(name="etcd")
        replies = await asyncio.gather(*(stub.SayHello(request, timeout=5) for _ in range(99)))
        for instance, count in sorted(collections.Counter(r.instance for r in replies).items()):
            print(f"{instance}: {count} calls")


if __name__ == "__main__":
    asyncio.run(main())
