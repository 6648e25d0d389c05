"""etcd's methods and the range that a prefix is."""

from __future__ import annotations

import pytest

from etcd_grpc.etcd import methods, rpc_pb2


@pytest.mark.parametrize(
    ("prefix", "end"),
    [
        (b"greeter/", b"greeter0"),
        (b"a", b"b"),
        (b"a\xfe", b"a\xff"),
        (b"a\xff", b"b"),
        (b"a\xff\xff", b"b"),
        (b"a\xff/", b"a\xff0"),
    ],
)
def test_prefix_end_is_the_first_key_behind_the_prefix(prefix: bytes, end: bytes) -> None:
    assert methods.prefix_end(prefix) == end


def test_paths_are_etcds_own() -> None:
    paths = {value.path for value in vars(methods).values() if isinstance(value, methods.Method)}
    assert paths == {
        "/etcdserverpb.KV/Range",
        "/etcdserverpb.KV/Put",
        "/etcdserverpb.KV/Txn",
        "/etcdserverpb.Watch/Watch",
        "/etcdserverpb.Lease/LeaseGrant",
        "/etcdserverpb.Lease/LeaseRevoke",
        "/etcdserverpb.Lease/LeaseKeepAlive",
        "/etcdserverpb.Lease/LeaseTimeToLive",
        "/grpc.health.v1.Health/Check",
        "/etcdserverpb.Auth/Authenticate",
    }


def test_messages_become_bytes_and_back() -> None:
    sent = rpc_pb2.RangeRequest(key=b"a/", range_end=b"a0", limit=5)
    assert rpc_pb2.RangeRequest.FromString(methods.RANGE.serialize(sent)) == sent
    answer = rpc_pb2.RangeResponse(more=True, count=7)
    assert methods.RANGE.deserialize(answer.SerializeToString()) == answer
