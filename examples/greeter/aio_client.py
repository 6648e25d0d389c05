"""The same client for asyncio: thirty calls at once, ten times, and who answered how many."""

import asyncio
import collections

import helloworld_pb2
import helloworld_pb2_grpc

import etcd_grpc


async def main() -> None:
    async with etcd_grpc.aio.insecure_channel("etcd:///helloworld.Greeter") as channel:
        stub = helloworld_pb2_grpc.GreeterStub(channel)
        request = helloworld_pb2.HelloRequest(name="etcd")
        answered: collections.Counter[str] = collections.Counter()
        for _ in range(10):
            replies = await asyncio.gather(*(stub.SayHello(request, timeout=5) for _ in range(30)))
            answered.update(reply.instance for reply in replies)
    for instance, count in sorted(answered.items()):
        print(f"{instance}: {count} calls")


if __name__ == "__main__":
    asyncio.run(main())
