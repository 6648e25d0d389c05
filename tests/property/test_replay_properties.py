"""However attempts end: each sends all requests from the first one on, in order, as they were."""

from __future__ import annotations

import contextlib
import enum

from hypothesis import given
from hypothesis import strategies as st

from etcd_grpc.channel.replay import ReplayBuffer, Request


class Step(enum.Enum):
    GIVE = enum.auto()  # the application gives one more
    SEND = enum.auto()  # the attempt takes the next one, and gRPC serializes it
    TAKE = enum.auto()  # the attempt takes the next one, and ends before that is serialized
    LATE = enum.auto()  # its thread serializes it all the same
    FAIL = enum.auto()  # another attempt begins, if it may
    SHOW = enum.auto()  # the application sees something of the answer


steps = st.lists(st.sampled_from(Step), max_size=60)


@given(steps, st.integers(0, 40))
def test_every_attempt_sends_all_in_order(script: list[Step], limit: int) -> None:
    buffer = ReplayBuffer(limit, contextlib.nullcontext())
    given_so_far = 0
    sent = 0  # by the current attempt
    known = 0  # bytes that were serialized, each once
    serialized: set[int] = set()
    shown = False
    late: list[tuple[int, Request]] = []

    def message(number: int) -> bytes:
        return b"%03d" % number

    def serialize(number: int, request: Request) -> None:
        nonlocal known
        assert request.serialize(None) == message(number)
        known += 0 if number in serialized else len(message(number))
        serialized.add(number)

    for step in script:
        match step:
            case Step.GIVE:
                buffer.append(message(given_so_far))
                given_so_far += 1
            case Step.SEND | Step.TAKE:
                request = buffer.take(sent)
                assert (request is not None) == (sent < given_so_far) == buffer.has(sent)
                if request is None:
                    continue
                if step is Step.SEND:
                    serialize(sent, request)
                else:
                    late.append((sent, request))
                sent += 1
            case Step.LATE:
                while late:
                    serialize(*late.pop())
            case Step.FAIL:
                if buffer.replayable:
                    buffer.restart()
                    sent = 0
            case Step.SHOW:
                buffer.commit()
                shown = True
        assert buffer.replayable == (not shown and known <= limit)
    while (request := buffer.take(sent)) is not None:
        assert request.serialize(None) == message(sent)
        sent += 1
    assert sent == given_so_far
