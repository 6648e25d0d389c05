"""Why calls go where they go, as objects, JSON and a table."""

from __future__ import annotations

import json

import grpc
from tests.support.balancing import Set, balancer

from etcd_grpc.balancer.explain import explain

DOWN = grpc.StatusCode.UNAVAILABLE


def test_everything_that_the_policy_goes_by_is_told() -> None:
    made = Set()
    nodes = [
        made.node("svc/a", zone="z1", version="v2", weight=2),
        made.node("svc/b"),
        made.node("svc/c", weight=0),
    ]
    chosen = balancer("outlier_detection", made.clock)
    chosen.picker(nodes)
    for _ in range(3):
        made.call(nodes[0], rtt_s=0.020)
    open_call = made.ticket(nodes[0])
    for _ in range(5):
        made.call(nodes[1], DOWN)
    chosen.tick()
    chosen.picker(nodes)
    made.clock.now += 1
    found = explain(chosen, nodes, made.clock.now, {"svc/a": "READY"})
    first, second, third = found.endpoints
    assert found.policy == "outlier_detection > round_robin"
    assert (first.zone, first.version, first.weight, first.state) == ("z1", "v2", 2, "READY")
    assert (first.in_flight, first.picks, first.load_ms, first.why) == (1, 4, 20.0, "")
    assert (first.share, second.share) == (0.4444, 0.5556)
    assert second.ejected_for_s is not None
    assert 3 <= second.ejected_for_s <= 5
    assert (second.why, second.failures) == ("5 failures in a row", 5)
    assert (third.why, third.share, third.ejected_for_s) == ("weight 0", 0.0, None)
    open_call.finish(DOWN)
    made.clock.now += 10
    chosen.tick()
    assert "being tried" in explain(chosen, nodes, made.clock.now).endpoints[1].why


def test_it_is_json_and_a_table() -> None:
    made = Set()
    nodes = made.nodes("svc/a", "svc/long-name")
    found = explain(balancer("least_request"), nodes, made.clock.now)
    parsed = json.loads(found.to_json())
    assert parsed["policy"] == "least_request"
    assert parsed["endpoints"][0]["load_ms"] is None
    lines = str(found).splitlines()
    assert lines[0] == "policy least_request"
    assert lines[1].split()[:2] == ["address", "state"]
    assert len(lines) == 4
    assert "svc/long-name:50051" in lines[3]


def test_panic_is_told() -> None:
    made = Set()
    nodes = made.nodes("a")
    chosen = balancer("outlier_detection", made.clock)
    chosen.picker(nodes)
    for _ in range(5):
        made.call(nodes[0], DOWN)
    chosen.tick()
    chosen.picker(nodes)
    assert "panic" in str(explain(chosen, nodes, made.clock.now))


def test_control_characters_of_a_registry_do_not_reach_the_terminal() -> None:
    made = Set()
    found = str(explain(balancer("random"), [made.node("a", zone="\x1b[31mred\n")], made.clock.now))
    assert "\x1b" not in found
    assert len(found.splitlines()) == 3


def test_no_endpoints_make_an_empty_table() -> None:
    assert explain(balancer("random"), [], 0.0).endpoints == ()
    assert str(explain(balancer("random"), [], 0.0)).startswith("policy random")
