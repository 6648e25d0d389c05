"""The probes: is the port open, does gRPC's health service say SERVING?

A check is called with the seconds that it may take and returns "" if all is well, else why not.  The
rule: each looks from outside, as a client would, over a new connection; nothing that it finds raises.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from etcd_grpc.errors import ConfigurationError
from etcd_grpc.model import split_address
from etcd_grpc.tls.material import CertificateFiles

__all__ = ["Check", "GrpcCheck", "ProbeTls", "TcpCheck", "listens"]

Check = Callable[[float], Awaitable[str]]

_NO_PROXY_NO_SHARING = (("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1))


@dataclass(frozen=True, slots=True)
class TcpCheck:
    """Whether ``address`` (``host:port``) accepts connections.

    The kernel accepts them, so this tells that a program listens and not that it answers.
    """

    address: str

    def __str__(self) -> str:
        return f"a TCP connection to {self.address}"

    async def __call__(self, timeout_s: float) -> str:
        host, port = split_address(self.address)
        try:
            async with asyncio.timeout(timeout_s):
                _, writer = await asyncio.open_connection(host.strip("[]"), port)
        except TimeoutError:
            return f"{self.address} did not accept a connection in {timeout_s:g} s"
        except (OSError, UnicodeError) as error:
            return f"{self.address}: {_in_words(error)}"
        writer.transport.abort()  # nothing was sent, so there is nothing to wait for
        return ""


@dataclass(frozen=True, slots=True)
class ProbeTls:
    """How a probe speaks TLS.

    Attributes:
        ca: PEM file of the authority that signed the program's certificate; None: the usual ones.
        cert, key: PEM files of a client certificate; both or neither.
        server_name: The name that the certificate is for, where it is not the host that is probed.

    Raises:
        ConfigurationError: A file cannot be used.
    """

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    server_name: str = ""

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise ConfigurationError("a client certificate for the probe needs both cert and key")
        self.credentials()

    def credentials(self) -> grpc.ChannelCredentials:
        """Read anew for every probe, so that files may be replaced.

        Raises:
            ConfigurationError: A file cannot be used.
        """
        pem = CertificateFiles(self.ca, self.cert, self.key, "probe's certificate").load()
        return grpc.ssl_channel_credentials(pem.ca, pem.key, pem.cert)


@dataclass(frozen=True, slots=True)
class GrpcCheck:
    """Whether ``grpc.health.v1.Health/Check`` at ``address`` answers SERVING.

    Attributes:
        service: The name that is asked for; "" is the server as a whole.
        tls: None: plaintext.
    """

    address: str
    service: str = ""
    tls: ProbeTls | None = None

    def __str__(self) -> str:
        return f"grpc.health.v1 at {self.address}{f' of {self.service}' if self.service else ''}"

    async def __call__(self, timeout_s: float) -> str:
        request = health_pb2.HealthCheckRequest(service=self.service)
        try:
            async with self._channel() as channel:
                stub = health_pb2_grpc.HealthStub(channel)
                answer = await stub.Check(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            return self._refusal(error, timeout_s)
        except ConfigurationError as error:  # a certificate that was replaced by none
            return str(error)
        if answer.status == health_pb2.HealthCheckResponse.SERVING:
            return ""
        name = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
        return f"{self} is {name}"

    def _channel(self) -> grpc.aio.Channel:
        options = list(_NO_PROXY_NO_SHARING)
        if self.tls is None:
            return grpc.aio.insecure_channel(self.address, options)
        if self.tls.server_name:
            named = ("grpc.ssl_target_name_override", self.tls.server_name)
            return grpc.aio.secure_channel(self.address, self.tls.credentials(), [*options, named])
        return grpc.aio.secure_channel(self.address, self.tls.credentials(), options)

    def _refusal(self, error: grpc.aio.AioRpcError, timeout_s: float) -> str:
        match error.code():
            case grpc.StatusCode.DEADLINE_EXCEEDED:
                return f"{self} did not answer in {timeout_s:g} s"
            case grpc.StatusCode.UNIMPLEMENTED:
                return f"{self.address} has no grpc.health.v1 service: add it, or use --probe tcp"
            case grpc.StatusCode.NOT_FOUND:
                return f"the health service at {self.address} knows no service {self.service!r}"
        return f"{self}: {error.code().name}: {error.details()}"


async def listens(address: str, timeout_s: float) -> bool:
    """Whether somebody accepts connections at ``address`` already."""
    return not await TcpCheck(address)(timeout_s)


def _in_words(error: OSError | UnicodeError) -> str:
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)  # asyncio's own words repeat the address
    return str(error)
