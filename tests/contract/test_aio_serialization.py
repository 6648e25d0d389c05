"""Serializers and deserializers of asyncio calls, and what happens when they fail."""

from __future__ import annotations


def broken(_):
    raise LookupError("mine")


async def test_a_request_that_cannot_be_serialized_is_logged(achannel, caplog):
    call = achannel.unary_unary("/contract/Echo", broken)(b"x", timeout=10)
    assert not await call  # a plain asyncio channel sends an empty one
    assert "mine" in caplog.text
    assert await achannel.unary_unary("/contract/Echo")(b"x", timeout=10) == b"x"


async def test_a_response_that_cannot_be_deserialized_is_logged(achannel, caplog):
    call = achannel.unary_unary("/contract/Echo", None, broken)(b"x", timeout=10)
    assert await call is None  # so it is on a plain channel
    assert "mine" in caplog.text
