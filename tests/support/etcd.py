"""A raw etcd client for tests: plain unary calls, no session of ours."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, Self

import grpc

from etcd_grpc.etcd import methods
from etcd_grpc.etcd import rpc_pb2 as rpc
from etcd_grpc.etcd.methods import Method, prefix_end

COMPACT = Method(
    "/etcdserverpb.KV/Compact",
    rpc.CompactionRequest.SerializeToString,
    rpc.CompactionResponse.FromString,
)
DELETE = Method(
    "/etcdserverpb.KV/DeleteRange",
    rpc.DeleteRangeRequest.SerializeToString,
    rpc.DeleteRangeResponse.FromString,
)

_AGAIN = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
# What etcd says if an attempt whose answer did not come in time had done it already.
_DONE = {
    COMPACT.path: grpc.StatusCode.OUT_OF_RANGE,
    methods.LEASE_REVOKE.path: grpc.StatusCode.NOT_FOUND,
}


class RawEtcd:
    """Reads and writes through one member."""

    def __init__(self, endpoint: str) -> None:
        self._channel = grpc.insecure_channel(endpoint)

    def call(self, method: Method[Any, Any], request: Any) -> Any:
        rpc_call = self._channel.unary_unary(method.path, method.serialize, method.deserialize)
        deadline = time.monotonic() + 60
        again = False
        while True:
            try:
                return rpc_call(request, timeout=2, wait_for_ready=True)
            except grpc.RpcError as error:
                if again and error.code() is _DONE.get(method.path):
                    return None
                # A new leader is being elected, or the old one took a proposal with it.
                if error.code() not in _AGAIN or time.monotonic() > deadline:
                    raise
                again = True
                time.sleep(0.05)

    def put(self, key: str, value: str | bytes, lease: int = 0) -> int:
        raw = value.encode() if isinstance(value, str) else value
        request = rpc.PutRequest(key=key.encode(), value=raw, lease=lease)
        return int(self.call(methods.PUT, request).header.revision)

    def delete(self, key: str) -> int:
        return int(self.call(DELETE, rpc.DeleteRangeRequest(key=key.encode())).header.revision)

    def get(self, prefix: str, revision: int = 0) -> dict[str, Any]:
        """All keys under ``prefix``, as etcd's KeyValue messages; as they were at ``revision``."""
        key = prefix.encode()
        request = rpc.RangeRequest(key=key, range_end=prefix_end(key), revision=revision)
        return {kv.key.decode(): kv for kv in self.call(methods.RANGE, request).kvs}

    def grant(self, ttl_s: int) -> int:
        """A new lease."""
        return int(self.call(methods.LEASE_GRANT, rpc.LeaseGrantRequest(TTL=ttl_s)).ID)

    def keep_alive(self, lease: int) -> None:
        self.call(methods.LEASE_KEEP_ALIVE, rpc.LeaseKeepAliveRequest(ID=lease))

    def revoke(self, lease: int) -> None:
        self.call(methods.LEASE_REVOKE, rpc.LeaseRevokeRequest(ID=lease))

    def revision(self) -> int:
        """The store's revision now."""
        return int(self.call(methods.RANGE, rpc.RangeRequest(key=b"x")).header.revision)

    def compact(self) -> None:
        self.call(COMPACT, rpc.CompactionRequest(revision=self.revision(), physical=True))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._channel.close()
