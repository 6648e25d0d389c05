"""A greeter with mutual TLS, which only one client may call.

Try it
------
In this folder, with an etcd at ETCDCTL_ENDPOINTS (``etcd-grpc devcluster`` starts one):

    etcd-grpc dev-ca certs --name helloworld.Greeter --spiffe spiffe://example.org/greeter-client
    python server.py
    python client.py --calls 6

and, while both run, the first command again: it renews the certificates.

Explanation
-----------
The server's certificate is for the *service's* name, so it is good wherever an instance runs, and
whoever can write into etcd cannot choose it.  The client is known by its SPIFFE ID.  Certificates that
are replaced on disk are used by new handshakes within two seconds; nothing is restarted and no call
fails.

Expected output
---------------
    helloworld.Greeter at 127.0.0.1:37469 is registered
    certs/server.pem was replaced, and is in use: it is for helloworld.Greeter; notBefore ...
"""

import argparse
import sys
from pathlib import Path

import etcd_grpc
from etcd_grpc.server.tls import ServerTls
from etcd_grpc.telemetry import events

sys.path.insert(0, str(Path(__file__).parents[1] / "greeter"))  # the generated code of the greeter
import helloworld_pb2
import helloworld_pb2_grpc

CLIENT = "spiffe://example.org/greeter-client"


class Greeter(helloworld_pb2_grpc.GreeterServicer):
    def SayHello(self, request, context):  # noqa: N802
        client = context.auth_context()["peer_uri"][0].decode()
        return helloworld_pb2.HelloReply(message=f"Hello, {request.name} of {client}!")


def tell(event: etcd_grpc.Event) -> None:
    told = events.Registered | events.CertificateRotated | events.CertificateRejected
    if isinstance(event, told):
        print(event, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--certs", type=Path, default=Path("certs"), help="what dev-ca has made")
    parser.add_argument("--host", default="127.0.0.1", help="where to listen (default: %(default)s)")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    arguments = parser.parse_args()
    certs = arguments.certs
    tls = ServerTls(
        certs / "server.pem",
        certs / "server.key",
        client_ca=certs / "ca.pem",
        allowed_clients={"helloworld.Greeter": [CLIENT]},
    )
    with etcd_grpc.listen(tell):
        etcd_grpc.serve(
            lambda server: helloworld_pb2_grpc.add_GreeterServicer_to_server(Greeter(), server),
            service="helloworld.Greeter",
            host=arguments.host,
            port=arguments.port,
            credentials=tls,
        )


if __name__ == "__main__":
    main()
