"""How policies are configured: names, defaults, layers, and errors that say what is wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.support.balancing import Set, balancer, endpoint, picks

from etcd_grpc.balancer.match import Match
from etcd_grpc.balancer.policies import ALIASES, POLICIES, parse_policy
from etcd_grpc.errors import ConfigurationError

NEEDED: dict[str, dict[str, Any]] = {
    "canary": {"match": {"version": "v2"}, "percent": 10},
    "filter": {"match": {"version": "v1"}},
    "subset": {"subsetSize": 2},
}
WRAPPERS = ["canary", "filter", "outlier_detection", "slow_start", "subset", "zone_aware"]


def configured(name: str, **settings: Any) -> dict[str, Any]:
    return {name: NEEDED.get(ALIASES.get(name, name), {}) | settings}


@pytest.mark.parametrize("name", [*POLICIES, *ALIASES])
def test_every_policy_makes_pickers_and_gives_weight_0_no_call(name: str) -> None:
    made = Set()
    nodes = [made.node(key, weight=weight, version="v1", zone="a") for key, weight in WEIGHTS.items()]
    chosen = balancer(configured(name))
    assert set(picks(chosen.picker(nodes), 2000)) <= {"a", "b", "c"}
    assert {e.key for e in chosen.select([n.endpoint for n in nodes])} <= {"a", "b", "c"}


WEIGHTS = {"zero": 0.0, "a": 1.0, "nought": 0.0, "b": 2.0, "c": 0.5}


@pytest.mark.parametrize("name", POLICIES)
def test_without_an_endpoint_that_takes_calls_there_is_no_picker(name: str) -> None:
    chosen = balancer(configured(name))
    assert chosen.picker([]) is None
    assert chosen.picker([Set().node("a", weight=0, version="v1", zone="a")]) is None


@pytest.mark.parametrize("name", sorted(set(POLICIES) - set(NEEDED)))
def test_bare_name_means_the_defaults(name: str) -> None:
    assert parse_policy(name) == parse_policy({name: {}}) == parse_policy([{name: {}}])


@pytest.mark.parametrize(("alias", "name"), ALIASES.items())
def test_names_of_grpc_are_known(alias: str, name: str) -> None:
    assert parse_policy(configured(alias)).name == name


def test_first_known_policy_of_a_list_is_taken() -> None:
    listed: list[dict[str, Any]] = [{"from_the_future": {}}, {"least_request": {}}, {"round_robin": {}}]
    assert parse_policy(listed).name == "least_request"


@pytest.mark.parametrize("given", ["fastest", {"fastest": {}}, [{"fastest": {}}], [], [{}], {}])
def test_unknown_policy_is_refused_and_all_known_ones_are_listed(given: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_policy(given)
    assert all(name in str(caught.value) for name in POLICIES)


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrong_child_is_refused_and_the_way_to_it_told(wrapper: str) -> None:
    with pytest.raises(ConfigurationError, match=f"fastest.* in {wrapper}; known are"):
        parse_policy(configured(wrapper, childPolicy=[{"fastest": {}}]))
    with pytest.raises(ConfigurationError, match=f"least_request in {wrapper}.*choiceCount"):
        parse_policy(configured(wrapper, childPolicy=[{"least_request": {"choiceCount": 0}}]))


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("least_request", {"choiceCount": 1}, ">= 2.*choiceCount"),
        ("least_request", {"choiceCount": "two"}, "choiceCount"),
        ("least_request", {"load": "cpu"}, "cpu.*load"),
        ("ring_hash", {"minRingSize": 0}, ">= 1.*minRingSize"),
        ("ring_hash", {"maxRingSize": 8388609}, "<= 8388608.*maxRingSize"),
        ("ring_hash", {"minRingSize": 20, "maxRingSize": 10}, "minRingSize.*at most maxRingSize"),
        ("ring_hash", {"requestHashHeader": "X-User"}, "requestHashHeader.*lower-case"),
        ("ring_hash", {"requestHashHeader": "x-user-bin"}, "requestHashHeader.*-bin"),
        ("weighted_round_robin", {"blackoutPeriod": 10}, "duration.*blackoutPeriod"),
        ("weighted_round_robin", {"errorUtilizationPenalty": -1}, "errorUtilizationPenalty"),
        ("weighted_round_robin", {"weightExpirationPeriod": "0s"}, "weightExpirationPeriod"),
        ("weighted_round_robin", {"enableOobLoadReport": True}, "enableOobLoadReport"),
        ("outlier_detection", {"interval": "0s"}, "interval.*more than 0s"),
        ("outlier_detection", {"baseEjectionTime": "0s"}, "baseEjectionTime"),
        ("outlier_detection", {"maxEjectionPercent": 101}, "<= 100.*maxEjectionPercent"),
        ("outlier_detection", {"consecutiveFailures": -1}, "consecutiveFailures"),
        ("outlier_detection", {"successRateEjection": {"stdevFactor": -1}}, "stdevFactor"),
        ("outlier_detection", {"failurePercentageEjection": {"threshold": 101}}, "threshold"),
        ("slow_start", {"window": "0s"}, "window"),
        ("slow_start", {"aggression": 0}, "aggression"),
        ("slow_start", {"minWeightPercent": 0}, "minWeightPercent"),
        ("subset", {"subsetSize": 0}, ">= 1.*subsetSize"),
        ("zone_aware", {"zone": 5}, "zone"),
        ("zone_aware", {"callerShare": 0}, "callerShare"),
        ("canary", {"percent": 101}, "percent"),
        ("canary", {"match": {}}, "match"),
        ("filter", {"match": {"metadata": {"a": []}}}, "metadata"),
        ("filter", {"childPolicy": {}}, "childPolicy"),
        ("round_robin", [], "object"),
    ],
)
def test_wrong_setting_is_refused_and_the_policy_and_the_field_are_named(
    name: str, settings: Any, said: str
) -> None:
    given = {name: settings if isinstance(settings, list) else NEEDED.get(name, {}) | settings}
    with pytest.raises(ConfigurationError, match=f"policy {name}.*{said}"):
        parse_policy(given)


@pytest.mark.parametrize("name", NEEDED)
def test_missing_setting_is_named(name: str) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(NEEDED[name]))):
        parse_policy(name)


def test_unknown_fields_are_ignored_as_grpc_does() -> None:
    assert parse_policy({"round_robin": {"future": 1}}) == parse_policy("round_robin")


def test_slow_start_refuses_a_child_that_weights_do_not_move() -> None:
    for child in ("round_robin", "pick_first", "ring_hash"):
        with pytest.raises(ConfigurationError, match=f"{child} does not heed weights; .*least_request"):
            parse_policy({"slow_start": {"childPolicy": [{child: {}}]}})
    with pytest.raises(ConfigurationError, match="round_robin does not heed weights"):
        parse_policy({"slow_start": {"childPolicy": [{"outlier_detection": {}}]}})


@pytest.mark.parametrize("wrapper", ["outlier_detection", "slow_start"])
def test_wrapper_that_changes_endpoints_may_stand_once(wrapper: str) -> None:
    innermost: dict[str, Any] = {wrapper: {"childPolicy": [{"random": {}}]}}
    inner = {"filter": {"match": {"zone": "a"}, "childPolicy": [innermost]}}
    with pytest.raises(ConfigurationError, match=f"{wrapper}: filter > {wrapper} > random has another"):
        parse_policy({wrapper: {"childPolicy": [inner]}})


def test_policies_may_not_be_nested_without_end() -> None:
    config: list[Any] = [{"round_robin": {}}]
    for _ in range(50):
        config = [{"subset": {"subsetSize": 1, "childPolicy": config}}]
    with pytest.raises(ConfigurationError, match="more than 16"):
        parse_policy(config)


def test_layers_are_told_from_the_outermost_to_the_innermost() -> None:
    inner = [{"least_request": {"load": "peak_ewma"}}]
    config = parse_policy(
        {"subset": {"subsetSize": 20, "childPolicy": [{"outlier_detection": {"childPolicy": inner}}]}}
    )
    assert str(config) == "subset > outlier_detection > least_request"


@pytest.mark.parametrize(
    ("given", "call", "outcomes"),
    [
        ("round_robin", False, False),
        ("pick_first", False, False),
        ("random", False, False),
        ("weighted_round_robin", False, False),
        ("least_request", False, False),
        ({"least_request": {"load": "peak_ewma"}}, False, True),
        ("ring_hash", True, False),
        ("outlier_detection", False, True),
        ({"subset": {"subsetSize": 2, "childPolicy": [{"ring_hash": {}}]}}, True, False),
        ({"outlier_detection": {"childPolicy": [{"ring_hash": {}}]}}, True, True),
    ],
)
def test_policy_says_what_it_needs_of_a_call(given: Any, call: bool, outcomes: bool) -> None:
    made = balancer(given)
    assert (made.wants_call, made.wants_outcomes) == (call, outcomes)


def test_target_query_becomes_the_outermost_filter() -> None:
    config = parse_policy("least_request").only(Match.of({"version": "v2", "shard": "3"}))
    assert str(config) == "filter > least_request"
    assert config.settings.match == Match("v2", "", {"shard": "3"})  # type: ignore[attr-defined]


def test_json_text_of_a_service_config_says_the_same() -> None:
    config = configured("outlier_detection", successRateEjection={"stdevFactor": 1500})
    assert parse_policy(json.loads(json.dumps(config))) == parse_policy(config)


def test_endpoints_that_no_layer_wants_need_no_connection() -> None:
    inner = [{"subset": {"subsetSize": 2}}]
    made = balancer({"filter": {"match": {"version": "v1"}, "childPolicy": inner}})
    endpoints = [endpoint(f"e{n}", version=f"v{n % 2}") for n in range(10)]
    chosen = made.select(endpoints)
    assert len(chosen) == 2
    assert {e.version for e in chosen} == {"v1"}
