"""The stage on which a benchmark plays: echo servers as processes, and a hand that writes to etcd.

Endpoints are written as any other program would write them, in the official naming layout and by
plain puts; so what is measured on our side is discovery alone.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import grpc

from benchmarks.outcome import BenchmarkError
from etcd_grpc.codec import NamingCodec
from etcd_grpc.etcd import methods, rpc_pb2
from etcd_grpc.model import Instance
from etcd_grpc.processes.children import Children

__all__ = [
    "ROOT",
    "Writer",
    "loopback_addresses",
    "port_of",
    "start_echo_servers",
    "start_server",
    "start_servers",
]

ROOT = Path(__file__).parent.parent

_TIMEOUT_S = 10.0


def start_echo_servers(children: Children, count: int, host: str = "127.0.0.1") -> list[int]:
    """Start ``count`` echo servers and return their ports; they end with ``children``.

    ``host`` 0.0.0.0 makes each of them reachable at every address of 127.0.0.0/8, which is how a
    few processes stand for many endpoints (on Linux).

    Raises:
        BenchmarkError: One did not start; why is on standard error.
    """
    return start_servers(children, [("benchmarks.echo_server", host)] * count)


def start_servers(children: Children, commands: Sequence[Sequence[str]]) -> list[int]:
    """Start servers, each a module with its arguments that prints its port, and return their ports.

    Raises:
        BenchmarkError: One did not start; why is on standard error.
    """
    processes = [start_server(children, *command) for command in commands]
    return [port_of(process) for process in processes]


def start_server(children: Children, module: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Start one server, and do not wait for it."""
    command = [sys.executable, "-m", module, *arguments]
    return children.spawn(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=sys.stderr.fileno())


def port_of(process: subprocess.Popen[bytes]) -> int:
    """Wait until a server listens.

    Raises:
        BenchmarkError: It has ended; why is on standard error.
    """
    assert process.stdout is not None
    with process.stdout as stdout:
        line = stdout.readline()
    if not line:
        raise BenchmarkError(f"a server did not start (exit status {process.wait()})")
    return int(line)


def loopback_addresses(count: int, ports: Sequence[int]) -> list[str]:
    """``count`` different addresses of this machine, over ``ports`` in turn."""
    return [
        f"127.1.{index // 250}.{index % 250 + 1}:{ports[index % len(ports)]}" for index in range(count)
    ]


class Writer:
    """Puts endpoints into etcd and deletes them, over one plain channel a member.

    Args:
        members: ``host:port`` of each etcd member.
    """

    def __init__(self, members: Sequence[str]) -> None:
        self._channels = [grpc.insecure_channel(member) for member in members]
        self._puts = [
            channel.unary_unary(methods.PUT.path, methods.PUT.serialize, methods.PUT.deserialize)
            for channel in self._channels
        ]
        self._txns = [
            channel.unary_unary(methods.TXN.path, methods.TXN.serialize, methods.TXN.deserialize)
            for channel in self._channels
        ]
        self._codec = NamingCodec()

    def key(self, service: str, address: str) -> bytes:
        """Where an endpoint stands."""
        return self._encode(service, address)[0]

    def put(self, service: str, address: str, member: int = 0) -> None:
        """Write one endpoint, through the member of this index (modulo their number)."""
        key, value = self._encode(service, address)
        request = rpc_pb2.PutRequest(key=key, value=value)
        self._puts[member % len(self._puts)](request, timeout=_TIMEOUT_S, wait_for_ready=True)

    def delete(self, service: str, address: str) -> None:
        """Delete one endpoint."""
        gone = rpc_pb2.DeleteRangeRequest(key=self.key(service, address))
        request = rpc_pb2.TxnRequest(success=[rpc_pb2.RequestOp(request_delete_range=gone)])
        self._txns[0](request, timeout=_TIMEOUT_S, wait_for_ready=True)

    def change(self, service: str, puts: Mapping[str, float], deletes: Sequence[str] = ()) -> None:
        """Write endpoints with their weights, and delete others, in one transaction.

        etcd takes 128 operations at most.
        """
        operations = []
        for address, weight in puts.items():
            key, value = self._encode(service, address, weight)
            put = rpc_pb2.PutRequest(key=key, value=value)
            operations.append(rpc_pb2.RequestOp(request_put=put))
        for address in deletes:
            gone = rpc_pb2.DeleteRangeRequest(key=self.key(service, address))
            operations.append(rpc_pb2.RequestOp(request_delete_range=gone))
        request = rpc_pb2.TxnRequest(success=operations)
        self._txns[0](request, timeout=_TIMEOUT_S, wait_for_ready=True)

    def close(self) -> None:
        """Close the channels."""
        for channel in self._channels:
            channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _encode(self, service: str, address: str, weight: float = 1.0) -> tuple[bytes, bytes]:
        return self._codec.encode(Instance(service, address, id="benchmark", weight=weight))
