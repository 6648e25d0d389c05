"""gRPC's service config: its own JSON, the checks of gRFC A6, the most specific name."""

from __future__ import annotations

import json
from typing import Any

import grpc
import pytest

from etcd_grpc.balancer.service_config import (
    HedgingPolicy,
    MethodConfig,
    RetryPolicy,
    ServiceConfig,
    Throttling,
)
from etcd_grpc.errors import ConfigurationError

RETRY = {
    "maxAttempts": 3,
    "initialBackoff": "0.1s",
    "maxBackoff": "1s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}


def for_all(**settings: Any) -> MethodConfig:
    """``settings`` for every method, parsed."""
    return ServiceConfig({"methodConfig": [{"name": [{}], **settings}]}).method("/a.B/C")


def retry(**changes: Any) -> RetryPolicy:
    parsed = for_all(retryPolicy={**RETRY, **changes}).retry
    assert parsed is not None
    return parsed


# The whole.


@pytest.mark.parametrize("config", [None, {}, "{}", '{"methodConfig": []}'])
def test_nothing_configured_means_round_robin_and_no_retries(config: Any) -> None:
    parsed = ServiceConfig(config)
    assert parsed.policy.name == "round_robin"
    assert parsed.throttling is None
    assert parsed.method("/a.B/C") == MethodConfig(None, None, None)


def test_text_and_object_are_the_same() -> None:
    config = {"methodConfig": [{"name": [{"service": "a.B"}], "timeout": "2s"}]}
    assert ServiceConfig(config).method("/a.B/C") == ServiceConfig(json.dumps(config)).method("/a.B/C")


@pytest.mark.parametrize(
    "config",
    [
        "",
        "{",
        "[]",
        "null",
        '"x"',
        "17",
        "\ud800",
        "[" * 100_000,
        17,
        object(),
        {"methodConfig": object()},
    ],
)
def test_malformed_config_is_refused(config: Any) -> None:
    with pytest.raises(ConfigurationError, match="service config"):
        ServiceConfig(config)


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"methodConfig": {}}, "methodConfig"),
        ({"methodConfig": [17]}, "methodConfig"),
        ({"methodConfig": [{"name": "a.B"}]}, "name"),
        ({"methodConfig": [{"name": [{"service": 1}]}]}, "service"),
        ({"methodConfig": [{"waitForReady": "yes"}]}, "waitForReady"),
        ({"methodConfig": [{"timeout": 1}]}, "timeout"),
        ({"methodConfig": [{"retryPolicy": {}}]}, "retryPolicy"),
        ({"loadBalancingConfig": {}}, "loadBalancingConfig"),
        ({"retryThrottling": {"maxTokens": 10}}, "tokenRatio"),
    ],
)
def test_message_names_the_wrong_field(config: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigurationError, match=field):
        ServiceConfig(config)


def test_unknown_fields_are_ignored() -> None:
    parsed = ServiceConfig(
        {
            "healthCheckConfig": {"serviceName": ""},
            "loadBalancingPolicy": "grpclb",
            "methodConfig": [{"name": [{}], "maxRequestMessageBytes": 10, "timeout": "1s"}],
        }
    )
    assert parsed.method("/a.B/C").timeout_s == 1.0


# The policy.


@pytest.mark.parametrize(
    "listed",
    [
        [{"round_robin": {}}],
        [{"not_known_here": {}}, {"round_robin": {}}],
        [{"round_robin": {}}, {"not_known_here": {}}],
        [{"round_robin": {"unknown": "field"}}],
    ],
)
def test_first_policy_that_is_known_is_taken(listed: list[Any]) -> None:
    assert ServiceConfig({"loadBalancingConfig": listed}).policy.name == "round_robin"


@pytest.mark.parametrize("listed", [[], [{}], [{"not_known_here": {}}]])
def test_list_without_a_known_policy_is_refused_and_the_known_ones_named(listed: list[Any]) -> None:
    with pytest.raises(ConfigurationError, match="round_robin"):
        ServiceConfig({"loadBalancingConfig": listed})


def test_settings_of_the_policy_are_read_and_a_wrong_one_is_named() -> None:
    listed = [{"least_request": {"choiceCount": 3}}]
    assert ServiceConfig({"loadBalancingConfig": listed}).policy.settings.choice_count == 3  # type: ignore[attr-defined]
    listed = [{"least_request": {"choiceCount": 1}}]
    with pytest.raises(ConfigurationError, match=r"service config: policy least_request.*choiceCount"):
        ServiceConfig({"loadBalancingConfig": listed})


# Names.


def named(*names: dict[str, str], timeout: str) -> dict[str, Any]:
    return {"name": list(names), "timeout": timeout}


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("path", "timeout_s"),
    [
        ("/a.B/C", 1.0),
        ("a.B/C", 1.0),
        ("/a.B/D", 2.0),
        ("/a.B/", 2.0),
        ("/a.Bx/C", 3.0),
        ("/x.Y/C", 3.0),
        ("/a/C", 3.0),
        ("", 3.0),
    ],
)
def test_most_specific_name_wins_whatever_the_order(path: str, timeout_s: float, reverse: bool) -> None:
    items = [
        named({"service": "a.B", "method": "C"}, timeout="1s"),
        named({"service": "a.B"}, timeout="2s"),
        named({}, timeout="3s"),
    ]
    config = {"methodConfig": items[::-1] if reverse else items}
    assert ServiceConfig(config).method(path).timeout_s == timeout_s


def test_settings_of_different_names_are_not_merged() -> None:
    """As in gRPC: the most specific entry is the whole answer."""
    parsed = ServiceConfig(
        {
            "methodConfig": [
                {"name": [{"service": "a.B", "method": "C"}], "waitForReady": True},
                {"name": [{"service": "a.B"}], "timeout": "2s"},
            ]
        }
    )
    assert parsed.method("/a.B/C") == MethodConfig(timeout_s=None, wait_for_ready=True, retry=None)


def test_one_entry_may_have_many_names() -> None:
    parsed = ServiceConfig(
        {"methodConfig": [named({"service": "a.A"}, {"service": "a.B"}, timeout="1s")]}
    )
    assert parsed.method("/a.A/X").timeout_s == parsed.method("/a.B/X").timeout_s == 1.0
    assert parsed.method("/a.C/X").timeout_s is None


def test_entry_without_names_applies_to_nothing() -> None:
    parsed = ServiceConfig({"methodConfig": [{"timeout": "1s"}]})
    assert parsed.method("/a.B/C") == MethodConfig()


def test_method_without_service_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="method but no service"):
        ServiceConfig({"methodConfig": [named({"method": "C"}, timeout="1s")]})


# Durations: proto3's JSON form.


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0s", 0.0),
        ("1s", 1.0),
        ("0.1s", 0.1),
        ("1.5s", 1.5),
        ("10.000000001s", 10.000000001),
        ("315576000000s", 315576000000.0),
        (".1s", 0.1),  # gRFC A6 writes it so, and gRPC's own parsers take it
    ],
)
def test_duration_is_read(text: str, seconds: float) -> None:
    assert for_all(timeout=text).timeout_s == seconds


NO_DURATIONS = [
    *("", "s", ".s", "1", "1ms", "1m", "1 s", " 1s", "1s\n", "-1s", "+1s", "1,5s", "1e3s", "0x1s"),
    *("nans", "infs", "1.1234567891s", "9999999999999999s", "1_0s", "١s"),
]


@pytest.mark.parametrize("text", NO_DURATIONS)
def test_what_is_no_duration_is_refused_and_the_field_named(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"timeout .* is not a duration"):
        for_all(timeout=text)


@pytest.mark.parametrize("waits", [True, False])
def test_wait_for_ready_is_read(waits: bool) -> None:
    assert for_all(waitForReady=waits).wait_for_ready is waits


# The retry policy.


def test_retry_policy_is_read() -> None:
    assert retry() == RetryPolicy(
        max_attempts=3,
        initial_backoff_s=0.1,
        max_backoff_s=1.0,
        backoff_multiplier=2.0,
        retryable=frozenset({grpc.StatusCode.UNAVAILABLE}),
    )


@pytest.mark.parametrize("multiplier", [0.5, 1, 1.5, 1e300])
def test_any_multiplier_above_nothing_is_read(multiplier: float) -> None:
    assert retry(backoffMultiplier=multiplier).backoff_multiplier == multiplier


@pytest.mark.parametrize(("given", "used"), [(2, 2), (5, 5), (6, 5), (1000, 5)])
def test_more_than_five_attempts_count_as_five(given: int, used: int) -> None:
    assert retry(maxAttempts=given).max_attempts == used


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"maxAttempts": 1}, "maxAttempts"),
        ({"maxAttempts": 0}, "maxAttempts"),
        ({"maxAttempts": -2}, "maxAttempts"),
        ({"maxAttempts": 2.5}, "maxAttempts"),
        ({"maxAttempts": "3"}, "maxAttempts"),
        ({"initialBackoff": "0s"}, "initialBackoff"),
        ({"initialBackoff": "soon"}, "initialBackoff"),
        ({"initialBackoff": 0.1}, "initialBackoff"),
        ({"maxBackoff": "0.0s"}, "maxBackoff"),
        ({"maxBackoff": "-1s"}, "maxBackoff"),
        ({"backoffMultiplier": 0}, "backoffMultiplier"),
        ({"backoffMultiplier": -1}, "backoffMultiplier"),
        ({"backoffMultiplier": "2"}, "backoffMultiplier"),
        ({"retryableStatusCodes": []}, "retryableStatusCodes"),
        ({"retryableStatusCodes": "UNAVAILABLE"}, "retryableStatusCodes"),
        ({"retryableStatusCodes": ["NO_SUCH_CODE"]}, "NO_SUCH_CODE"),
        ({"retryableStatusCodes": [17]}, "17"),
        ({"retryableStatusCodes": [-1]}, "-1"),
        ({"retryableStatusCodes": [True]}, "retryableStatusCodes"),
    ],
)
def test_wrong_retry_policy_is_refused_and_the_field_named(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        retry(**changes)


@pytest.mark.parametrize("field", RETRY)
def test_every_field_of_a_retry_policy_is_required(field: str) -> None:
    shortened = {name: value for name, value in RETRY.items() if name != field}
    with pytest.raises(ConfigurationError, match=field):
        for_all(retryPolicy=shortened)


def test_message_names_everything_that_is_wrong() -> None:
    with pytest.raises(ConfigurationError, match=r"maxAttempts.*initialBackoff.*retryableStatusCodes"):
        retry(maxAttempts=1, initialBackoff="0s", retryableStatusCodes=[])


@pytest.mark.parametrize("code", grpc.StatusCode)
def test_code_is_given_by_name_or_number(code: grpc.StatusCode) -> None:
    number: int = code.value[0]
    assert retry(retryableStatusCodes=[code.name]).retryable == {code}
    assert retry(retryableStatusCodes=[number]).retryable == {code}


@pytest.mark.parametrize("name", ["unavailable", "Unavailable"])
def test_code_names_are_case_insensitive(name: str) -> None:
    """gRFC A6: "specified in the integer form or the case-insensitive string form"."""
    assert retry(retryableStatusCodes=[name]).retryable == {grpc.StatusCode.UNAVAILABLE}


def test_codes_given_twice_count_once() -> None:
    codes = ["UNAVAILABLE", 14, "ABORTED"]
    assert retry(retryableStatusCodes=codes).retryable == {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.ABORTED,
    }


def test_hedging_is_read() -> None:
    parsed = for_all(
        hedgingPolicy={
            "maxAttempts": 3,
            "hedgingDelay": "0.05s",
            "nonFatalStatusCodes": ["unavailable", 13],
        }
    )
    codes = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL})
    assert parsed.hedging == HedgingPolicy(3, 0.05, codes)
    assert parsed.retry is None


def test_hedging_without_a_delay_or_codes_sends_all_at_once_and_ends_with_any_failure() -> None:
    """Both may be left out (gRFC A6, service_config.proto)."""
    parsed = for_all(hedgingPolicy={"maxAttempts": 2})
    assert parsed.hedging == HedgingPolicy(2, 0.0, frozenset())


def test_more_than_five_hedges_are_five() -> None:
    hedging = for_all(hedgingPolicy={"maxAttempts": 9}).hedging
    assert hedging is not None
    assert hedging.max_attempts == 5


@pytest.mark.parametrize(
    ("policy", "complaint"),
    [
        ({"maxAttempts": 1}, "maxAttempts"),
        ({}, "maxAttempts"),
        ({"maxAttempts": 2, "hedgingDelay": "-1s"}, "hedgingDelay"),
        ({"maxAttempts": 2, "hedgingDelay": "soon"}, "hedgingDelay"),
        ({"maxAttempts": 2, "nonFatalStatusCodes": ["NEVER"]}, "NEVER"),
    ],
)
def test_malformed_hedging_is_refused(policy: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        for_all(hedgingPolicy=policy)


def test_method_is_retried_or_hedged_but_not_both() -> None:
    with pytest.raises(ConfigurationError, match="choose one"):
        for_all(hedgingPolicy={"maxAttempts": 2}, retryPolicy=RETRY)


# Throttling.


@pytest.mark.parametrize(("tokens", "ratio"), [(10, 0.1), (1, 1), (1000, 0.001)])
def test_throttling_is_read(tokens: float, ratio: float) -> None:
    parsed = ServiceConfig({"retryThrottling": {"maxTokens": tokens, "tokenRatio": ratio}})
    assert parsed.throttling == Throttling(tokens, ratio)


@pytest.mark.parametrize(("tokens", "ratio"), [(0, 0.1), (-1, 0.1), (1001, 0.1), (10, 0), (10, -0.1)])
def test_throttling_out_of_range_is_refused(tokens: float, ratio: float) -> None:
    with pytest.raises(ConfigurationError, match="retryThrottling"):
        ServiceConfig({"retryThrottling": {"maxTokens": tokens, "tokenRatio": ratio}})
