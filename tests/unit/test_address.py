"""Which registered addresses are believed."""

from __future__ import annotations

import pytest

from etcd_grpc.address import AddressPolicy
from etcd_grpc.config import EtcdConfig
from etcd_grpc.errors import ConfigurationError


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.5:1",
        "192.168.1.1:1",
        "8.8.8.8:1",
        "[2001:db8::1]:1",
        "[fd00::1]:1",
        "greeter.prod.svc:1",
    ],
)
def test_ordinary_addresses_are_believed(address: str) -> None:
    assert AddressPolicy().refusal(address) == ""


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254:80",
        "[fe80::1]:1",
        "[fd00:ec2::254]:80",
        "[::ffff:169.254.169.254]:80",
        "100.100.100.200:80",
        "metadata.google.internal:80",
        "Metadata.Google.Internal.:80",
        "224.0.0.1:1",
        "0.0.0.0:1",
        "[::]:1",
    ],
)
@pytest.mark.parametrize("loopback", [True, False])
def test_what_no_instance_has_is_refused(address: str, loopback: bool) -> None:
    assert "allowed_networks" in AddressPolicy(loopback=loopback).refusal(address)


@pytest.mark.parametrize(
    "address", ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1", "LocalHost.:1", "a.localhost:1"]
)
def test_loopback_is_believed_only_where_etcd_is(address: str) -> None:
    assert "loopback" in AddressPolicy().refusal(address)
    assert AddressPolicy(loopback=True).refusal(address) == ""
    assert EtcdConfig(("127.0.0.1:2379",)).address_policy().refusal(address) == ""
    assert EtcdConfig(("10.0.0.1:2379",)).address_policy().refusal(address)


def test_listed_networks_narrow_the_rest() -> None:
    policy = AddressPolicy(["10.0.0.0/8", "2001:db8::/32"])
    assert policy.refusal("10.1.2.3:1") == ""
    assert policy.refusal("[2001:db8::1]:1") == ""
    assert "none of the listed" in policy.refusal("192.168.1.1:1")
    assert "a name" in policy.refusal("greeter.prod.svc:1")
    assert policy.refusal("127.0.0.1:1")


def test_listed_network_allows_what_the_rule_refuses() -> None:
    assert AddressPolicy(["127.0.0.0/8"]).refusal("127.0.0.1:1") == ""
    assert AddressPolicy(["169.254.0.0/16"]).refusal("169.254.7.7:1") == ""


@pytest.mark.parametrize("bad", ["10.0.0.0/33", "nonsense", "10.0.0.1/8"])
def test_what_is_no_network_is_refused_and_named(bad: str) -> None:
    with pytest.raises(ConfigurationError, match="allowed_networks"):
        EtcdConfig(allowed_networks=(bad,))
