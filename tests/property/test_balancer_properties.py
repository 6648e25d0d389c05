"""Round robin's shares, backoff's and retry's bounds, the range of a prefix."""

from __future__ import annotations

import itertools
import random

import grpc
from hypothesis import given
from hypothesis import strategies as st
from tests.support.balancing import Set, balancer, picks, spread

from etcd_grpc.balancer.service_config import RetryPolicy, Throttling
from etcd_grpc.channel.retry import Attempts, Throttle
from etcd_grpc.etcd.backoff import Backoff
from etcd_grpc.etcd.methods import prefix_end

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
NAMES = "abcdefghijkl"
seeds = st.integers(0, 2**32)
seconds = st.floats(0.001, 100)


@given(seeds, st.lists(st.tuples(st.integers(1, 12), st.integers(0, 60)), max_size=12))
def test_shares_are_exact_to_one_call_however_the_set_changes(
    seed: int, phases: list[tuple[int, int]]
) -> None:
    policy = balancer("round_robin", seed=seed)
    for members, calls in phases:
        nodes = Set().nodes(*NAMES[:members])
        picked = picks(policy.picker(nodes), calls)
        assert spread(picked, NAMES[:members]) <= 1
        for start in range(0, calls - members + 1, members):
            assert set(picked[start : start + members]) == set(NAMES[:members])


@given(seeds, st.integers(1, 12), st.lists(st.integers(1, 20), max_size=20))
def test_publishing_the_same_set_again_never_disturbs_the_turn(
    seed: int, members: int, calls: list[int]
) -> None:
    policy = balancer("round_robin", seed=seed)
    nodes = Set().nodes(*NAMES[:members])
    picked: list[int] = []
    for count in calls:
        picked += [NAMES.index(name) for name in picks(policy.picker(nodes), count)]
    for first, second in itertools.pairwise(picked):
        assert second == (first + 1) % members


@given(seeds, seconds, seconds, st.integers(0, 5), st.integers(1, 300))
def test_backoff_stays_within_its_bounds(
    seed: int, initial_s: float, max_s: float, free: int, failures: int
) -> None:
    backoff = Backoff(random.Random(seed), initial_s=initial_s, max_s=max_s, free=free)
    delays = [backoff.next_delay() for _ in range(failures)]
    assert all(delay == 0.0 for delay in delays[:free])
    for steps, delay in enumerate(delays[free:]):
        base = min(max_s, initial_s * 1.6**steps)
        assert 0.49 * base <= delay <= 1.51 * base
    backoff.reset()
    assert (backoff.next_delay() == 0.0) == (free > 0)


policies = st.builds(
    RetryPolicy,
    max_attempts=st.integers(2, 5),
    initial_backoff_s=seconds,
    max_backoff_s=seconds,
    backoff_multiplier=st.floats(0.1, 1e308),
    retryable=st.just(frozenset({UNAVAILABLE})),
)
# How an attempt failed: its code, the server's wish, and whether no server saw it.
failures = st.tuples(
    st.sampled_from([UNAVAILABLE, grpc.StatusCode.INTERNAL]),
    st.none() | st.integers(-(2**31), 2**31 - 1).map(str) | st.text(max_size=5),
    st.booleans(),
)


@given(seeds, st.none() | policies, st.booleans(), st.lists(failures, max_size=60))
def test_retries_end_and_their_delays_are_bounded(
    seed: int,
    policy: RetryPolicy | None,
    throttled: bool,
    course: list[tuple[grpc.StatusCode, str | None, bool]],
) -> None:
    throttle = Throttle(Throttling(10, 0.1)) if throttled else None
    attempts = Attempts(policy, throttle, random.Random(seed))
    configured = 0
    for code, wish, unseen in course:
        trailers = None if wish is None else [("grpc-retry-pushback-ms", wish)]
        delay = attempts.next_delay(code, trailers, unseen=unseen)
        if unseen and delay == 0.0:
            continue  # it never left: free
        if delay is None:
            break
        configured += 1
        assert policy is not None
        assert code in policy.retryable
        if wish is None:
            assert 0 <= delay <= policy.max_backoff_s * 1.2
        else:
            assert delay == int(wish) / 1000
    assert configured < (policy.max_attempts if policy else 1)


@given(
    st.binary(min_size=1, max_size=6).filter(lambda prefix: prefix.strip(b"\xff")),
    st.binary(max_size=8),
)
def test_range_of_a_prefix_has_exactly_the_keys_that_begin_with_it(prefix: bytes, key: bytes) -> None:
    end = prefix_end(prefix)
    for candidate in (key, prefix + key, prefix, end, prefix[:-1]):
        assert (prefix <= candidate < end) == candidate.startswith(prefix)
