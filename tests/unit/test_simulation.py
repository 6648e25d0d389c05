"""The simulator: the same calls by each policy, in virtual time."""

from __future__ import annotations

import doctest
import json
import random
import time
from typing import Any

import pytest

import etcd_grpc.balancer
from etcd_grpc.balancer import EVERY_POLICY, Server, simulate
from etcd_grpc.errors import ConfigurationError

EWMA = {"least_request": {"load": "peak_ewma"}}


def fleet(count: int = 9, **odd: Server) -> dict[str, Server]:
    return {f"s{n}": Server(latency=0.010, concurrency=4) for n in range(count)} | odd


def test_one_idle_server_answers_in_its_own_time() -> None:
    result = simulate({"s": Server(latency=0.010)}, ["round_robin"], rate=10, calls=500)["round_robin"]
    assert result.p50_ms == result.p99_ms == result.max_ms == result.mean_ms == 10.0
    assert (result.errors, result.imbalance, result.shares) == (0, 1.0, {"s": 1.0})


def test_queue_grows_as_theory_says() -> None:
    """M/D/1 (Pollaczek and Khinchine): at 80 % use the mean wait is twice the time of service."""
    server = {"s": Server(latency=0.010, concurrency=1)}
    result = simulate(server, ["round_robin"], rate=80, calls=50_000)["round_robin"]
    assert result.mean_ms == pytest.approx(10 + 10 * 0.8 / (2 * 0.2), rel=0.1)


def test_same_seed_gives_the_same_and_another_seed_something_else() -> None:
    servers = fleet(slow=Server(latency=lambda rng: rng.expovariate(20), concurrency=4))
    first, again, other = (simulate(servers, rate=500, calls=2000, seed=s) for s in (1, 1, 2))
    assert first == again
    assert first != other


def test_servers_are_the_same_whatever_else_is_simulated() -> None:
    servers = fleet(slow=Server(latency=(0.05, 0.1), concurrency=4))
    alone = simulate(servers, ["least_request"], rate=500, calls=2000)["least_request"]
    among = simulate(servers, ["random", "least_request"], rate=500, calls=2000)["least_request"]
    assert alone == among


def test_least_request_beats_round_robin_where_a_server_is_slow() -> None:
    report = simulate(fleet(slow=Server(latency=0.1, concurrency=4)), rate=1000, calls=5000)
    assert report["least_request"].p99_ms < report["round_robin"].p99_ms / 3
    assert report["least_request, peak_ewma"].shares["slow"] < 0.05
    assert report["round_robin"].imbalance == 1.0
    assert report["pick_first"].imbalance == 10.0


def test_load_reports_bring_weighted_round_robin_to_the_slow_server() -> None:
    servers = fleet(slow=Server(latency=0.02, concurrency=4))
    found = simulate(servers, ["weighted_round_robin"], rate=800, calls=40_000)["weighted_round_robin"]
    assert found.shares["slow"] < 0.08


def test_server_that_fails_fast_is_ejected() -> None:
    servers = fleet(hole=Server(latency=0.01, failures=1.0))
    report = simulate(servers, rate=1000, calls=10_000)
    assert report["outlier_detection"].errors < 20 < report["round_robin"].errors


def test_recorded_samples_are_replayed() -> None:
    server = {"s": Server(latency=[0.001, 0.002, 0.003])}
    result = simulate(server, ["random"], rate=10, calls=1000)["random"]
    assert (result.p50_ms, result.max_ms) == (2.0, 3.0)


def test_zone_and_version_reach_the_policies() -> None:
    servers = {
        "a": Server(latency=0.01, zone="a", version="v1"),
        "b": Server(latency=0.01, zone="b", version="v2", metadata={"gpu": True}),
        "none": Server(latency=0.01, weight=0),
    }
    policies: dict[str, Any] = {
        "zone": {"zone_aware": {"zone": "a"}},
        "gpu": {"filter": {"match": {"metadata": {"gpu": True}}}},
        "nobody": {"filter": {"match": {"version": "v3"}}},
    }
    report = simulate(servers, policies, rate=100, calls=100)
    assert report["zone"].shares == {"a": 1.0, "b": 0.0, "none": 0.0}
    assert report["gpu"].shares["b"] == 1.0
    assert report["nobody"].errors == 100


def test_an_hour_takes_seconds() -> None:
    began = time.monotonic()
    report = simulate(fleet(), [EWMA, "ring_hash"], rate=1, calls=3600)
    assert time.monotonic() - began < 30
    assert [result.policy for result in report.results] == [json.dumps(EWMA), "ring_hash"]


def test_report_is_json_and_a_table() -> None:
    report = simulate(fleet(2), ["random", "round_robin"], rate=100, calls=100)
    parsed = json.loads(report.to_json())
    assert [result["policy"] for result in parsed["results"]] == ["random", "round_robin"]
    assert len(str(report).splitlines()) == 3
    assert str(report).splitlines()[0].split()[:3] == ["policy", "p50", "ms"]
    with pytest.raises(KeyError):
        report["fastest"]


@pytest.mark.parametrize(
    ("servers", "changes"),
    [
        ({}, {}),
        (fleet(1), {"rate": 0}),
        (fleet(1), {"rate": -1}),
        (fleet(1), {"calls": 0}),
        (fleet(1), {"policies": ["fastest"]}),
    ],
)
def test_what_cannot_be_simulated_is_refused(
    servers: dict[str, Server], changes: dict[str, Any]
) -> None:
    with pytest.raises(ConfigurationError):
        simulate(servers, **({"rate": 10, "calls": 10} | changes))


def test_example_in_the_docstring_is_true() -> None:
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner()
    names = {"simulate": simulate, "Server": Server, "random": random}
    runner.run(parser.get_doctest(simulate.__doc__ or "", names, "simulate", None, 0))
    assert runner.summarize().failed == 0
    assert runner.tries > 0


def test_every_policy_that_needs_no_knowledge_of_the_service_is_compared() -> None:
    report = simulate(fleet(3), rate=100, calls=50)
    assert [result.policy for result in report.results] == list(EVERY_POLICY)
    assert etcd_grpc.balancer.simulate is simulate
