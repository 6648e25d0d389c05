"""Calls the greeter with mutual TLS; server.py says how to try it.

Expected output
---------------
    Hello, etcd of spiffe://example.org/greeter-client!
    certs/client.pem was replaced, and is in use: it is for spiffe://example.org/greeter-client; ...
    Hello, etcd of spiffe://example.org/greeter-client!
"""

import argparse
import contextlib
import sys
import time
from pathlib import Path

import etcd_grpc
from etcd_grpc.telemetry import events
from etcd_grpc.tls import ChannelTls

sys.path.insert(0, str(Path(__file__).parents[1] / "greeter"))  # the generated code of the greeter
import helloworld_pb2
import helloworld_pb2_grpc


def tell(event: etcd_grpc.Event) -> None:
    if isinstance(event, events.CertificateRotated | events.CertificateRejected):
        print(event, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--certs", type=Path, default=Path("certs"), help="what dev-ca has made")
    parser.add_argument("--calls", type=int, default=0, help="how many; 0 goes on until Ctrl-C")
    parser.add_argument("--interval", type=float, default=0.5, help="seconds between two calls")
    arguments = parser.parse_args()
    certs = arguments.certs
    tls = ChannelTls(certs / "ca.pem", certs / "client.pem", certs / "client.key")
    with (
        etcd_grpc.listen(tell),
        etcd_grpc.secure_channel("etcd:///helloworld.Greeter", tls) as channel,
    ):
        stub = helloworld_pb2_grpc.GreeterStub(channel)
        made = 0
        while not arguments.calls or made < arguments.calls:
            reply = stub.SayHello(helloworld_pb2.HelloRequest(name="etcd"), timeout=5)
            print(reply.message, flush=True)
            made += 1
            time.sleep(arguments.interval)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
