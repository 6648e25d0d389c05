"""An application's iterator of requests, for as many attempts as it takes."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from tests.support.waiting import wait_until

from etcd_grpc.channel.replay import replayed
from etcd_grpc.channel.sync.requests import Requests

serialize = replayed(None)


def numbers(count: int) -> Iterator[bytes]:
    for number in range(count):
        yield b"%d" % number


def test_after_the_commit_the_iterator_is_the_attempts_own() -> None:
    requests = Requests(numbers(5), 100)
    attempt = requests.attempt()
    sent = iter(attempt)
    assert serialize(next(sent)) == b"0"
    assert not attempt.alone
    requests.commit()
    assert [serialize(message) for message in sent] == [b"1", b"2", b"3", b"4"]
    assert attempt.alone


def test_what_was_taken_for_an_attempt_that_failed_comes_before_the_iterator_goes_on() -> None:
    requests = Requests(numbers(4), 100)
    first = requests.attempt()
    sent = iter(first)
    assert [serialize(next(sent)) for _ in range(2)] == [b"0", b"1"]
    first.end()
    assert list(sent) == []
    second = requests.attempt()
    requests.commit()
    assert [serialize(message) for message in second] == [b"0", b"1", b"2", b"3"]


def test_the_applications_iterator_is_not_closed_with_the_call() -> None:
    source = numbers(3)
    requests = Requests(source, 100)
    sent = iter(requests.attempt())
    next(sent)
    requests.commit()
    next(sent)
    del sent, requests
    assert next(source) == b"2"


def test_an_attempt_takes_what_another_ones_thread_has_waited_for() -> None:
    given = threading.Event()

    def slow() -> Iterator[bytes]:
        assert given.wait(20)
        yield b"late"

    requests = Requests(slow(), 100)
    got: dict[str, list[bytes]] = {}
    first, second = requests.attempt(), requests.attempt()

    def read(name: str) -> None:
        attempt = first if name == "first" else second
        got[name] = [serialize(message) for message in attempt]

    threads = [threading.Thread(target=read, args=[name]) for name in ("first", "second")]
    threads[0].start()
    wait_until(lambda: requests.asking, "the first one's thread waits for the application")
    first.end()
    threads[1].start()
    given.set()
    for thread in threads:
        thread.join(20)
    assert got == {"first": [], "second": [b"late"]}


def test_an_error_of_the_iterator_is_everybodys() -> None:
    def broken() -> Iterator[bytes]:
        yield b"one"
        raise ZeroDivisionError

    requests = Requests(broken(), 100)
    sent = iter(requests.attempt())
    next(sent)
    for attempt in (sent, iter(requests.attempt())):
        with pytest.raises(ZeroDivisionError):
            list(attempt)
    assert not requests.replayable
