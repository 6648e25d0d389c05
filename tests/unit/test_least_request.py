"""``least_request``: of a few drawn, the one with the least load."""

from __future__ import annotations

import grpc
import pytest
from tests.support.balancing import Set, balancer, shares

from etcd_grpc.balancer.least_request import LeastRequestSettings
from etcd_grpc.balancer.simulation import Server, simulate

PEAK_EWMA = {"least_request": {"load": "peak_ewma"}}


def test_idle_endpoints_share_evenly() -> None:
    found = shares(balancer("least_request").picker(Set().nodes("a", "b", "c", "d")), 40_000)
    assert all(share == pytest.approx(0.25, abs=0.02) for share in found.values())


@pytest.mark.parametrize(("choices", "share"), [(2, 1 / 4), (3, 1 / 8), (10, 1 / 1024), (50, 1 / 1024)])
def test_busy_endpoint_is_taken_only_if_no_other_was_drawn(choices: int, share: float) -> None:
    """Draws are with replacement (gRFC A48), and more than 10 choices count as 10."""
    busy, idle = Set().nodes("busy", "idle")
    busy.stats.in_flight.append(None)
    picker = balancer({"least_request": {"choiceCount": choices}}).picker([busy, idle])
    assert shares(picker, 40_000).get("busy", 0) == pytest.approx(share, abs=0.01)


def test_load_is_read_at_the_pick_and_not_when_the_picker_was_made() -> None:
    a, b = Set().nodes("a", "b")
    picker = balancer({"least_request": {"choiceCount": 10}}).picker([a, b])
    for busy, other in ((a, "b"), (b, "a")):
        busy.stats.in_flight.append(None)
        assert shares(picker, 1000).get(other, 0) > 0.98
        busy.stats.in_flight.clear()


def test_weights_draw_more_often_and_share_the_queue() -> None:
    heavy, light = Set().weighted({"heavy": 3, "light": 1})
    picker = balancer("least_request").picker([heavy, light])
    assert shares(picker, 40_000)["heavy"] == pytest.approx(0.75, abs=0.02)
    heavy.stats.in_flight.extend([None] * 2)
    light.stats.in_flight.extend([None] * 1)
    assert shares(picker, 40_000)["heavy"] == pytest.approx(1 - 1 / 16, abs=0.02)  # 2/3 < 1


def test_slow_endpoint_is_avoided_by_peak_ewma() -> None:
    made = Set()
    slow, fast = made.nodes("slow", "fast")
    made.call(fast, rtt_s=0.01)
    made.call(slow, rtt_s=0.10)
    picker = balancer(PEAK_EWMA, made.clock).picker([slow, fast])
    assert shares(picker, 20_000)["slow"] == pytest.approx(0.25, abs=0.02)


def test_unknown_endpoint_does_not_attract_calls() -> None:
    made = Set()
    known = made.nodes(*"abcdefghi")
    for node in known * 5:
        made.call(node, rtt_s=0.01)
    fresh = made.node("fresh")
    fresh.stats.in_flight.append(None)  # one call, not yet answered: as busy as it may get
    picker = balancer(PEAK_EWMA, made.clock).picker([*known, fresh])
    assert shares(picker, 20_000).get("fresh", 0) < 0.1


def test_server_that_fails_fast_does_not_attract_calls() -> None:
    made = Set()
    nodes = made.nodes("a", "b", "hole")
    for node in nodes[:2] * 10:
        made.call(node, rtt_s=0.01)
    for _ in range(10):
        made.call(nodes[2], grpc.StatusCode.UNAVAILABLE, rtt_s=0.0001)
    picker = balancer(PEAK_EWMA, made.clock).picker(nodes)
    assert shares(picker, 20_000)["hole"] < 0.34


def test_endpoint_ten_times_slower_gets_less_than_a_quarter_of_its_share_within_5_s() -> None:
    servers = {f"s{n}": Server(latency=0.01) for n in range(9)} | {"slow": Server(latency=0.1)}
    report = simulate(servers, {"ewma": PEAK_EWMA}, rate=500, calls=2500)
    assert report["ewma"].shares["slow"] < 0.25 / 10


def test_settings_have_grpcs_defaults() -> None:
    assert LeastRequestSettings() == LeastRequestSettings(choice_count=2, load="in_flight")


def test_time_passes_only_for_loads_that_need_it() -> None:
    def clock() -> float:
        raise AssertionError

    picker = balancer("least_request", clock).picker(Set().nodes("a", "b"))
    assert picker is not None
    picker.pick()
