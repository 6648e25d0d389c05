"""What is kept of a call's requests, in case it is sent again."""

from __future__ import annotations

import contextlib
import gc
import weakref

import pytest

from etcd_grpc.channel.replay import ReplayBuffer, Request, replayed


def filled(*messages: object, limit: int = 100) -> ReplayBuffer:
    buffer = ReplayBuffer(limit, contextlib.nullcontext())
    for message in messages:
        buffer.append(message)
    return buffer


def sent(buffer: ReplayBuffer, number: int) -> bytes:
    """An attempt takes this one, and gRPC serializes it."""
    request = buffer.take(number)
    assert request is not None
    return request.serialize(None)


def all_sent(buffer: ReplayBuffer, count: int) -> list[bytes]:
    return [sent(buffer, number) for number in range(count)]


def test_each_attempt_takes_all_from_the_first_one_on() -> None:
    buffer = filled(b"a", b"b")
    assert all_sent(buffer, 2) == [b"a", b"b"]
    assert buffer.take(2) is None
    buffer.restart()
    buffer.append(b"c")
    assert buffer.has(2)
    assert all_sent(buffer, 3) == [b"a", b"b", b"c"]
    assert buffer.replayable


def test_past_the_limit_no_attempt_follows() -> None:
    buffer = filled(b"x" * 60, b"y" * 40, b"z", limit=100)
    all_sent(buffer, 2)
    assert buffer.replayable, "as much as the limit is kept"
    sent(buffer, 2)
    assert not buffer.replayable


def test_what_was_sent_twice_counts_once() -> None:
    buffer = filled(b"x" * 60, limit=100)
    sent(buffer, 0)
    buffer.restart()
    sent(buffer, 0)
    assert buffer.replayable


class Message:
    def __init__(self, text: bytes) -> None:
        self.text = text


def test_a_committed_call_keeps_nothing_that_was_taken() -> None:
    messages = [Message(b"%d" % number) for number in range(4)]
    known = [weakref.ref(message) for message in messages]
    buffer = filled(*messages)
    del messages
    buffer.take(0)
    buffer.take(1)
    buffer.commit()
    buffer.commit()  # a second time, which changes nothing
    buffer.take(2)
    gc.collect()
    assert [message() is not None for message in known] == [False, False, False, True]
    assert buffer.take(3) is not None


def test_an_attempt_that_has_taken_nothing_yet_finds_all_after_the_commit() -> None:
    """A server may answer before it has read anything."""
    buffer = filled(b"a", b"b")
    all_sent(buffer, 2)
    buffer.restart()
    buffer.commit()
    assert all_sent(buffer, 2) == [b"a", b"b"]


def test_a_message_that_is_changed_later_is_sent_as_it_was() -> None:
    buffer = filled(message := Message(b"before"))
    serialize = replayed(lambda message: message.text)
    request = buffer.take(0)
    assert isinstance(request, Request)
    assert serialize(request) == b"before"
    message.text = b"after"
    buffer.restart()
    assert serialize(request) == b"before"


def test_who_serializes_late_does_not_replace_what_was_sent() -> None:
    """The thread of an attempt that is over, while the application changes the message already."""
    buffer = filled(b"message")
    request = buffer.take(0)
    assert request is not None

    def slow(message: bytes) -> bytes:
        request.serialize(None)  # meanwhile another attempt does it
        return b"changed"

    assert request.serialize(slow) == b"message"
    assert request.serialize(None) == b"message"


def test_a_serializer_that_raises_ends_it() -> None:
    buffer = filled(b"message")
    request = buffer.take(0)
    assert request is not None
    with pytest.raises(ZeroDivisionError):
        request.serialize(lambda _message: bytes(1 // 0))
    assert not buffer.replayable
