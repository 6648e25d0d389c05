"""Metadata of asyncio calls, both ways, text and binary."""

from __future__ import annotations

import json

import grpc
import pytest
from tests.support.contract_server import INITIAL, TRAILING

SENT = (("asked", "yes"), ("asked-bin", b"\x00\xfe\xff"), ("asked", "twice"))
ARRIVED = [["asked", "yes"], ["asked-bin", "00feff"], ["asked", "twice"]]


def asked(reply):
    return [item for item in json.loads(reply)["metadata"] if item[0].startswith("asked")]


@pytest.mark.parametrize("metadata", [SENT, list(SENT), grpc.aio.Metadata(*SENT)], ids=type)
async def test_metadata_arrives(achannel, metadata):
    reply = await achannel.unary_unary("/contract/Seen")(b"", timeout=10, metadata=metadata)
    assert sorted(asked(reply)) == sorted(ARRIVED)
    call = achannel.unary_stream("/contract/SeenStream")(b"", timeout=10, metadata=metadata)
    assert sorted(asked(await call.read())) == sorted(ARRIVED)


async def test_metadata_of_the_server_is_a_metadata(achannel):
    call = achannel.unary_unary("/contract/Echo")(b"x", timeout=10)
    initial, trailing = await call.initial_metadata(), await call.trailing_metadata()
    assert isinstance(initial, grpc.aio.Metadata)
    assert isinstance(trailing, grpc.aio.Metadata)
    assert initial["initial"] == "one"
    assert initial["initial-bin"] == b"\x00\xff"
    assert list(initial) == list(INITIAL)
    assert list(trailing) == list(TRAILING)


async def test_metadata_that_cannot_be_sent_is_refused(achannel):
    echo = achannel.unary_unary("/contract/Echo")
    with pytest.raises((ValueError, grpc.RpcError, grpc.aio.InternalError)):
        await echo(b"x", timeout=10, metadata=(("Upper", "x"),))
    assert await echo(b"x", timeout=10) == b"x"


async def test_the_server_is_told_the_deadline(achannel):
    seen = json.loads(await achannel.unary_unary("/contract/Seen")(b"", timeout=20))
    assert 10 < seen["time_remaining"] < 21
