"""How an instance tells its id."""

from __future__ import annotations

from etcd_grpc.identity import INSTANCE_KEY, told_id


def test_id_is_read_from_initial_metadata() -> None:
    assert told_id((("x", "y"), (INSTANCE_KEY, "a1"))) == "a1"
    assert told_id(((INSTANCE_KEY, b"a1"),)) == "a1"


def test_no_id_is_told_as_none() -> None:
    assert told_id(()) is None
    assert told_id(None) is None
    assert told_id((("x", "y"),)) is None
