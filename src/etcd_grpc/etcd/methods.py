"""The etcd methods that we call, by their literal paths, with the message classes of rpc_pb2."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message

from etcd_grpc.etcd import rpc_pb2 as rpc

__all__ = [
    "AUTHENTICATE",
    "HEALTH_CHECK",
    "LEASE_GRANT",
    "LEASE_KEEP_ALIVE",
    "LEASE_REVOKE",
    "LEASE_TIME_TO_LIVE",
    "PUT",
    "RANGE",
    "TXN",
    "WATCH",
    "Method",
    "prefix_end",
]

Q = TypeVar("Q")
R = TypeVar("R")
M = TypeVar("M", bound=Message)
N = TypeVar("N", bound=Message)


@dataclass(frozen=True, slots=True, eq=False)
class Method(Generic[Q, R]):
    """One RPC of etcd: its path and how its messages become bytes."""

    path: str
    serialize: Callable[[Q], bytes]
    deserialize: Callable[[bytes], R]


def _method(path: str, request: type[M], response: type[N]) -> Method[M, N]:
    serialize: Any = request.SerializeToString
    return Method(path, serialize, response.FromString)


RANGE = _method("/etcdserverpb.KV/Range", rpc.RangeRequest, rpc.RangeResponse)
PUT = _method("/etcdserverpb.KV/Put", rpc.PutRequest, rpc.PutResponse)
TXN = _method("/etcdserverpb.KV/Txn", rpc.TxnRequest, rpc.TxnResponse)
WATCH = _method("/etcdserverpb.Watch/Watch", rpc.WatchRequest, rpc.WatchResponse)
LEASE_GRANT = _method("/etcdserverpb.Lease/LeaseGrant", rpc.LeaseGrantRequest, rpc.LeaseGrantResponse)
LEASE_REVOKE = _method(
    "/etcdserverpb.Lease/LeaseRevoke", rpc.LeaseRevokeRequest, rpc.LeaseRevokeResponse
)
LEASE_KEEP_ALIVE = _method(
    "/etcdserverpb.Lease/LeaseKeepAlive", rpc.LeaseKeepAliveRequest, rpc.LeaseKeepAliveResponse
)
LEASE_TIME_TO_LIVE = _method(
    "/etcdserverpb.Lease/LeaseTimeToLive", rpc.LeaseTimeToLiveRequest, rpc.LeaseTimeToLiveResponse
)
# An empty message asks for the whole server; what it answers does not matter.
HEALTH_CHECK: Method[bytes, bytes] = Method("/grpc.health.v1.Health/Check", bytes, bytes)
AUTHENTICATE = _method(
    "/etcdserverpb.Auth/Authenticate", rpc.AuthenticateRequest, rpc.AuthenticateResponse
)


def prefix_end(prefix: bytes) -> bytes:
    """The ``range_end`` that selects every key beginning with ``prefix`` (not empty, not all 0xff)."""
    kept = prefix.rstrip(b"\xff")
    return kept[:-1] + bytes([kept[-1] + 1])
