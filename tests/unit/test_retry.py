"""Whether and when a failed call is sent again: gRFC A6."""

from __future__ import annotations

import random
import threading
from typing import Any

import grpc
import pytest

from etcd_grpc.balancer.service_config import RetryPolicy, Throttling
from etcd_grpc.channel.retry import Attempts, Throttle, never_left

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
REFUSED = (
    "failed to connect to all addresses; last error: UNKNOWN: ipv4:10.0.0.5:50051: "
    "Failed to connect to remote host: Connection refused"
)
REFUSED_IPV6 = (
    "failed to connect to all addresses; last error: UNKNOWN: ipv6:%5B2001:db8::1%5D:50051: "
    "Failed to connect to remote host: Connection refused"
)


class _Middle(random.Random):
    """No jitter: the middle of every range."""

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


def policy(**changes: Any) -> RetryPolicy:
    return RetryPolicy(
        **{
            "max_attempts": 5,
            "initial_backoff_s": 0.1,
            "max_backoff_s": 1.0,
            "backoff_multiplier": 2.0,
            "retryable": frozenset({UNAVAILABLE}),
            **changes,
        }
    )


def attempts(
    retry: RetryPolicy | None, throttle: Throttle | None = None, rng: random.Random | None = None
) -> Attempts:
    return Attempts(retry, throttle, rng or _Middle())


def seen(
    made: Attempts, pushback: str | bytes | None = None, code: grpc.StatusCode = UNAVAILABLE
) -> float | None:
    """The delay after a failure that a server may have seen."""
    trailers = None if pushback is None else [("other", "1"), ("grpc-retry-pushback-ms", pushback)]
    return made.next_delay(code, trailers, unseen=False)


# Calls that never left.


@pytest.mark.parametrize(
    ("details", "address"), [(REFUSED, "10.0.0.5:50051"), (REFUSED_IPV6, "[2001:db8::1]:50051")]
)
def test_connection_refused_means_never_left(details: str, address: str) -> None:
    assert never_left(UNAVAILABLE, details, address, connected=False)


@pytest.mark.parametrize(
    ("code", "details", "address", "connected"),
    [
        (UNAVAILABLE, REFUSED, "10.0.0.5:50051", True),  # connected: a server may have said that
        (grpc.StatusCode.UNKNOWN, REFUSED, "10.0.0.5:50051", False),
        (grpc.StatusCode.DEADLINE_EXCEEDED, REFUSED, "10.0.0.5:50051", False),
        (UNAVAILABLE, REFUSED, "10.0.0.5:5005", False),  # another endpoint's failure
        (UNAVAILABLE, REFUSED, "10.0.0.5:50052", False),
        (UNAVAILABLE, "server shutting down", "10.0.0.5:50051", False),
        (UNAVAILABLE, f"upstream: {REFUSED}", "10.0.0.5:50051", False),
        (UNAVAILABLE, "Socket closed", "10.0.0.5:50051", False),
        (UNAVAILABLE, "", "10.0.0.5:50051", False),
        (UNAVAILABLE, None, "10.0.0.5:50051", False),
    ],
)
def test_anything_else_may_have_been_seen_by_a_server(
    code: grpc.StatusCode, details: str | None, address: str, connected: bool
) -> None:
    assert not never_left(code, details, address, connected)


@pytest.mark.parametrize("retry", [None, policy()], ids=["no policy", "policy"])
def test_call_that_never_left_is_sent_again_at_once_by_any_policy_or_none(
    retry: RetryPolicy | None,
) -> None:
    assert attempts(retry).next_delay(UNAVAILABLE, None, unseen=True) == 0.0


def test_transparent_retries_have_an_end() -> None:
    made = attempts(None)
    delays = [made.next_delay(UNAVAILABLE, None, unseen=True) for _ in range(100)]
    assert delays == [0.0] * 20 + [None] * 80


def test_transparent_retries_do_not_count_as_attempts() -> None:
    made = attempts(policy(max_attempts=2))
    for _ in range(5):
        made.next_delay(UNAVAILABLE, None, unseen=True)
    assert seen(made) is not None


def test_transparent_retries_cost_no_tokens() -> None:
    throttle = Throttle(Throttling(10, 0.1))
    for _ in range(10):
        attempts(policy(), throttle).next_delay(UNAVAILABLE, None, unseen=True)
    assert seen(attempts(policy(), throttle)) is not None


# The retry policy.


def test_without_a_policy_a_failure_is_final() -> None:
    assert seen(attempts(None)) is None
    assert seen(attempts(None), pushback="0") is None


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not UNAVAILABLE])
def test_code_that_is_not_listed_is_final(code: grpc.StatusCode) -> None:
    assert seen(attempts(policy()), code=code) is None
    assert seen(attempts(policy()), code=code, pushback="0") is None


@pytest.mark.parametrize("most", [2, 3, 5])
def test_attempts_include_the_first(most: int) -> None:
    made = attempts(policy(max_attempts=most))
    delays = [seen(made) for _ in range(most + 2)]
    assert [delay is not None for delay in delays] == [True] * (most - 1) + [False] * 3


def test_delays_grow_by_the_multiplier_up_to_the_most() -> None:
    made = attempts(policy(backoff_multiplier=3.0, max_backoff_s=0.5))
    assert [seen(made) for _ in range(4)] == pytest.approx([0.1, 0.3, 0.5, 0.5])


def test_delays_may_shrink() -> None:
    made = attempts(policy(backoff_multiplier=0.5))
    assert [seen(made) for _ in range(3)] == pytest.approx([0.1, 0.05, 0.025])


def test_delays_are_jittered_by_a_fifth_either_way() -> None:
    rng = random.Random(1)
    delays = [seen(attempts(policy(), rng=rng)) for _ in range(1000)]
    numbers = [delay for delay in delays if delay is not None]
    assert len(numbers) == 1000
    assert 0.08 <= min(numbers) < 0.081
    assert 0.119 < max(numbers) <= 0.12


def test_same_rng_gives_the_same_delays() -> None:
    first, second = (attempts(policy(), rng=random.Random(7)) for _ in range(2))
    assert [seen(first) for _ in range(4)] == [seen(second) for _ in range(4)]


@pytest.mark.parametrize("multiplier", [1e155, 1e308])
def test_huge_multiplier_gives_the_most_delay(multiplier: float) -> None:
    made = attempts(policy(backoff_multiplier=multiplier))
    assert [seen(made) for _ in range(4)] == pytest.approx([0.1, 1.0, 1.0, 1.0])


# Pushback.


@pytest.mark.parametrize(
    ("wish", "delay"),
    [("0", 0.0), ("1", 0.001), ("2500", 2.5), (b"2500", 2.5), ("2147483647", 2147483.647)],
)
def test_servers_wish_is_the_delay_exactly(wish: str | bytes, delay: float) -> None:
    assert seen(attempts(policy(), rng=random.Random(1)), wish) == delay


@pytest.mark.parametrize(
    "wish",
    ["-1", "-2500", "", "x", " 5", "5 ", "+5", "1.5", "1e3", "0x10", "5\n", "٣", b"\xff", "9" * 5000],
)
def test_negative_or_unparseable_wish_means_do_not_retry(wish: str | bytes) -> None:
    assert seen(attempts(policy()), wish) is None


def test_wish_does_not_add_attempts() -> None:
    made = attempts(policy(max_attempts=2))
    assert seen(made, "1") == 0.001
    assert seen(made, "1") is None


def test_delay_begins_anew_after_a_wish() -> None:
    """gRFC A6: "retry delay will reset to initial backoff for the following retry"."""
    made = attempts(policy(max_backoff_s=100.0))
    assert [seen(made), seen(made), seen(made, "7"), seen(made)] == pytest.approx(
        [0.1, 0.2, 0.007, 0.1]
    )


def test_other_trailers_are_no_wish() -> None:
    made = attempts(policy())
    assert made.next_delay(UNAVAILABLE, [("grpc-retry-pushback", "7")], unseen=False) == pytest.approx(
        0.1
    )
    assert made.next_delay(UNAVAILABLE, [], unseen=False) == pytest.approx(0.2)


# Throttling.


def test_no_retry_while_at_most_half_of_the_tokens_are_left() -> None:
    throttle = Throttle(Throttling(10, 0.1))
    delays = [seen(attempts(policy(), throttle)) for _ in range(7)]
    assert [delay is not None for delay in delays] == [True] * 4 + [False] * 3


def test_successes_bring_tokens_back() -> None:
    throttle = Throttle(Throttling(10, 0.5))
    for _ in range(5):
        throttle.failed()
    assert seen(attempts(policy(), throttle)) is None  # 4 of 10 are left
    for _ in range(4):
        throttle.succeeded()  # 6
    assert seen(attempts(policy(), throttle)) is None  # 5: half is not enough
    for _ in range(3):
        throttle.succeeded()  # 6.5
    assert seen(attempts(policy(), throttle)) is not None


def test_tokens_never_exceed_the_most() -> None:
    throttle = Throttle(Throttling(4, 1))
    for _ in range(100):
        throttle.succeeded()
    assert [throttle.failed() for _ in range(3)] == [True, False, False]


def test_tokens_never_fall_below_none() -> None:
    throttle = Throttle(Throttling(4, 1))
    for _ in range(100):
        throttle.failed()
    for _ in range(3):
        throttle.succeeded()
    assert not throttle.failed()  # 2 of 4
    for _ in range(2):
        throttle.succeeded()
    assert throttle.failed()  # 3 of 4


def test_only_failures_with_a_listed_code_cost_tokens() -> None:
    throttle = Throttle(Throttling(10, 0.1))
    for _ in range(100):
        seen(attempts(policy(), throttle), code=grpc.StatusCode.INVALID_ARGUMENT)
        seen(attempts(None, throttle))
    assert seen(attempts(policy(), throttle)) is not None


def test_last_attempt_and_one_pushed_back_cost_a_token_too() -> None:
    throttle = Throttle(Throttling(10, 0.1))
    made = attempts(policy(max_attempts=2), throttle)
    seen(made)  # 9
    seen(made)  # 8
    seen(attempts(policy(), throttle), "-1")  # 7
    assert throttle.failed()  # 6
    assert not throttle.failed()  # 5


def test_throttle_counts_exactly_from_many_threads() -> None:
    throttle = Throttle(Throttling(1000, 1))

    def fail() -> None:
        for _ in range(50):
            throttle.failed()

    workers = [threading.Thread(target=fail) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=30)
    assert [throttle.failed() for _ in range(101)] == [True] * 99 + [False] * 2  # 600 were left
