"""What a balanced channel is made of: checked once, the same for both worlds."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.support.balancing import Clock, Set

import etcd_grpc
from etcd_grpc.balancer.service_config import ServiceConfig
from etcd_grpc.channel.spec import ChannelSpec
from etcd_grpc.config import EtcdConfig
from etcd_grpc.errors import ConfigurationError
from etcd_grpc.target import Target


def spec(target: str = "etcd:///greeter", options: Any = None, **changes: Any) -> ChannelSpec:
    given = {"etcd": "10.9.9.9:2379", "policy": None, "service_config": None, **changes}
    return ChannelSpec.make(target, options, None, None, **given)


def with_timeout(text: str) -> dict[str, Any]:
    return {"methodConfig": [{"name": [{}], "timeout": text}]}


def test_defaults() -> None:
    made = spec()
    assert made.target == Target("greeter")
    assert made.etcd == EtcdConfig(("10.9.9.9:2379",))
    assert made.policy.name == "round_robin"
    assert made.credentials is None
    picker = made.effective().make_balancer(random.Random(1), Clock()).picker(Set().nodes("a"))
    assert picker is not None
    assert len(picker) == 1


def test_etcd_comes_from_the_environment_if_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ETCDCTL_ENDPOINTS", "10.0.0.1:2379")
    assert spec(etcd=None).etcd.endpoints == ("10.0.0.1:2379",)


def test_service_config_comes_from_the_channel_option() -> None:
    options = [("grpc.service_config", json.dumps(with_timeout("3s")))]
    assert spec(options=options).service_config.method("/a.B/C").timeout_s == 3.0


def test_argument_wins_over_the_channel_option() -> None:
    options = [("grpc.service_config", json.dumps(with_timeout("3s")))]
    made = spec(options=options, service_config=with_timeout("1s"))
    assert made.service_config.method("/a.B/C").timeout_s == 1.0


def test_service_config_is_ours_and_not_handed_to_the_real_channels() -> None:
    options = [("a", 1), ("grpc.service_config", "{}"), ("b", 2)]
    names = [name for name, _ in spec(options=options).options]
    assert names[-2:] == ["a", "b"]
    assert "grpc.service_config" not in names


def test_users_options_take_the_place_of_ours() -> None:
    """C-core takes the first of two."""
    made = spec(options=[("grpc.use_local_subchannel_pool", 0), ("grpc.keepalive_timeout_ms", 3000)])
    names = [name for name, _ in made.options]
    assert len(names) == len(set(names))
    assert dict(made.options)["grpc.use_local_subchannel_pool"] == 0
    assert dict(made.options)["grpc.keepalive_timeout_ms"] == 3000
    assert dict(made.options)["grpc.keepalive_time_ms"] > 300_000, "no more pings than servers allow"


@pytest.mark.parametrize(
    "wrong",
    [
        {"target": "greeter"},
        {"etcd": "10.9.9.9"},
        {"policy": "no_such_policy"},
        {"service_config": "{"},
        {"options": [("grpc.service_config", "{")]},
        {"service_config": {"loadBalancingConfig": [{"no_such_policy": {}}]}},
    ],
)
@pytest.mark.parametrize("world", [etcd_grpc, etcd_grpc.aio], ids=["sync", "aio"])
def test_wrong_argument_is_an_error_where_the_channel_is_made(
    world: Any, wrong: dict[str, Any]
) -> None:
    arguments = {"target": "etcd:///greeter", "etcd": "10.9.9.9:2379", **wrong}
    with pytest.raises(ConfigurationError):
        world.insecure_channel(**arguments)
    with pytest.raises(ConfigurationError):
        world.secure_channel(credentials=grpc.ssl_channel_credentials(), **arguments)


def test_certificate_file_that_is_missing_is_an_error_where_the_channel_is_made(tmp_path: Path) -> None:
    missing = tmp_path / "missing.pem"
    with pytest.raises(ConfigurationError, match=r"missing\.pem"):
        etcd_grpc.insecure_channel("etcd:///greeter", etcd=EtcdConfig(ca_cert=missing))


def test_unknown_policy_error_names_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match="round_robin"):
        spec(policy="no_such_policy")


def test_policy_is_a_name_or_a_configuration_and_wins_over_the_service_config() -> None:
    config: dict[str, Any] = {"loadBalancingConfig": [{"pick_first": {}}]}
    assert spec(service_config=config).policy.name == "pick_first"
    assert spec(service_config=config, policy="least_request").policy.name == "least_request"
    layered = {"outlier_detection": {"childPolicy": [{"least_request": {"load": "peak_ewma"}}]}}
    assert str(spec(policy=layered).policy) == "outlier_detection > least_request"


# What a service config in etcd changes.


def test_what_etcd_has_replaces_the_channels_own_service_config() -> None:
    made = spec(
        service_config=with_timeout("3s") | {"retryThrottling": {"maxTokens": 5, "tokenRatio": 1}}
    )
    effective = made.effective(ServiceConfig(with_timeout("1s")))
    assert effective.service_config.method("/a.B/C").timeout_s == 1.0
    assert effective.service_config.throttling is None


def test_a_channels_policy_stays_where_etcd_names_none() -> None:
    made = spec(policy="least_request")
    assert made.effective().policy.name == "least_request"
    assert made.effective(ServiceConfig(with_timeout("1s"))).policy.name == "least_request"
    found = ServiceConfig({"loadBalancingConfig": [{"random": {}}]})
    assert made.effective(found).policy.name == "random"


def test_a_targets_query_narrows_any_policy() -> None:
    made = spec("etcd:///greeter?version=v2")
    found = ServiceConfig({"loadBalancingConfig": [{"random": {}}]})
    assert str(made.effective().policy) == "filter > round_robin"
    assert str(made.effective(found).policy) == "filter > random"


def test_a_service_config_in_etcd_can_be_declined_as_in_grpc() -> None:
    assert spec().shares_config
    declined = spec(options=[("grpc.service_config_disable_resolution", 1)])
    assert not declined.shares_config
    assert "grpc.service_config_disable_resolution" not in dict(declined.options)
