"""The nouns: what can be registered and what cannot."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from etcd_grpc.errors import ConfigurationError
from etcd_grpc.model import (
    Endpoint,
    Instance,
    Put,
    Remove,
    Snapshot,
    Status,
    Update,
    check_advertised,
    check_service,
    ip_of,
    shown,
    split_address,
)


def instance(**fields: Any) -> Instance:
    return Instance(**{"service": "greeter", "address": "10.0.0.5:50051", "id": "a", **fields})


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        ("10.0.0.5:50051", "10.0.0.5", 50051),
        ("greeter:1", "greeter", 1),
        (
            "greeter-0.greeter.prod.svc.cluster.local:65535",
            "greeter-0.greeter.prod.svc.cluster.local",
            65535,
        ),
        ("my_host:80", "my_host", 80),
        ("[2001:db8::1]:50051", "[2001:db8::1]", 50051),
        ("[::1]:50051", "[::1]", 50051),
        ("[::ffff:10.0.0.5]:50051", "[::ffff:10.0.0.5]", 50051),
        ("[fe80::1%eth0]:50051", "[fe80::1%eth0]", 50051),
    ],
)
def test_address_splits_into_host_and_port(address: str, host: str, port: int) -> None:
    assert split_address(address) == (host, port)


@pytest.mark.parametrize(
    "address",
    [
        "",
        ":",
        "greeter",
        "greeter:",
        ":50051",
        "2001:db8::1",
        "2001:db8::1:50051",
        "[2001:db8::1]",
        "[]:50051",
        "[greeter]:50051",
        "greeter:http",
        "greeter:-1",
        "greeter:+80",
        "greeter: 80",
        "greeter:8_0",
        "greeter:٨٠",  # Arabic digits
        "greeter:80\n",
        "gree ter:80",
        "greeter\x00:80",
        "\x1b[31mgreeter:80",
        "<script>:80",
        "user@greeter:80",
        "http://greeter:80",
        "unix:/run/greeter.sock",
        "-greeter:80",
        "a" * 254 + ":80",
    ],
)
def test_what_is_no_host_and_port_is_refused(address: str) -> None:
    with pytest.raises(ConfigurationError, match="host:port"):
        split_address(address)


@pytest.mark.parametrize("port", ["0", "65536", "70000", "00000", "100000", "9" * 5000])
def test_port_out_of_range_is_refused(port: str) -> None:
    with pytest.raises(ConfigurationError, match=r"1\.\.65535"):
        split_address(f"10.0.0.5:{port}")


@pytest.mark.parametrize("address", ["[::::]:80", "[1:2]:80", "[10.0.0.5]:80", "[12345::1]:80"])
def test_what_stands_in_brackets_must_be_ipv6(address: str) -> None:
    with pytest.raises(ConfigurationError):
        split_address(address)


def test_address_error_is_short_however_long_the_address() -> None:
    with pytest.raises(ConfigurationError) as caught:
        split_address("x" * 100_000)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("text", "as_shown"),
    [
        ("10.0.0.1:2379", "10.0.0.1:2379"),
        ("https://10.0.0.1:2379", "https://10.0.0.1:2379"),
        ("root:hunter2@10.0.0.1:2379", "***@10.0.0.1:2379"),
        ("https://root:hunter2@10.0.0.1:2379", "https://***@10.0.0.1:2379"),
        ("https://root:hunter@2@10.0.0.1:2379", "https://***@10.0.0.1:2379"),
        ("https://token@10.0.0.1:2379", "https://***@10.0.0.1:2379"),
        ("@10.0.0.1:2379", "10.0.0.1:2379"),
        ("x" * 1000, "x" * 80),
        ("", ""),
    ],
)
def test_errors_show_addresses_short_and_without_passwords(text: str, as_shown: str) -> None:
    assert shown(text) == as_shown


@pytest.mark.parametrize(
    ("host", "ip"),
    [
        ("10.0.0.5", "10.0.0.5"),
        ("[2001:db8:0::1]", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("[::ffff:10.0.0.5]", "10.0.0.5"),
        ("[fe80::1%eth0]", "fe80::1%eth0"),
        ("greeter", None),
        ("10.0.0", None),
        ("", None),
    ],
)
def test_host_is_an_ip_address_or_a_name(host: str, ip: str | None) -> None:
    found = ip_of(host)
    assert (None if found is None else str(found)) == ip


@pytest.mark.parametrize(
    "address",
    [
        *("10.0.0.5:50051", "[2001:db8::1]:1", "127.0.0.1:80", "greeter:80", "10.0.0.5.example:80"),
        *("240.0.0.1:80", "[fd00::1]:80", "[::ffff:10.0.0.5]:80", "409712345678:80", "0a:80"),
    ],
)
def test_address_that_clients_can_reach_may_be_advertised(address: str) -> None:
    assert check_advertised(address) == address


@pytest.mark.parametrize(
    "host",
    [
        "0.0.0.0",
        "[::]",
        "[::0]",
        "[0:0:0:0:0:0:0:0]",
        "[0::0]",
        "[0::]",
        "[::0.0.0.0]",
        "[0000::0]",
        "[::ffff:0.0.0.0]",
        "[::%1]",
    ],
)
def test_unspecified_address_is_refused_however_it_is_written(host: str) -> None:
    with pytest.raises(ConfigurationError, match="ETCD_GRPC_ADVERTISE"):
        check_advertised(f"{host}:50051")


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("0.1.2.3", "to listen on"),
        ("224.0.0.1", "multicast"),
        ("[ff02::1]", "multicast"),
        ("169.254.169.254", "link-local"),
        ("[fe80::1%eth0]", "link-local"),
        ("[::ffff:169.254.1.1]", "link-local"),
        ("255.255.255.255", "broadcast"),
        ("[2001:db8::1%eth0]", "zone"),
        *((host, "neither an IPv4") for host in ("0", "127.1", "0x7f.1", "10.0.0.256", "2130706433")),
    ],
)
def test_address_that_no_client_elsewhere_can_use_is_refused_and_why(host: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"{why}.*ETCD_GRPC_ADVERTISE"):
        check_advertised(f"{host}:50051")


@pytest.mark.parametrize(
    "name", ["greeter", "helloworld.Greeter", "prod/greeter", "a/b/c", "grüße", "with space", "x" * 512]
)
def test_service_name_is_accepted(name: str) -> None:
    assert check_service(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "/", "/greeter", "greeter/", "a//b", "a\x00b", "a\nb", "\x1b[31m", "\ud800", "x" * 513],
)
def test_service_name_that_cannot_be_a_key_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="service name"):
        check_service(name)


def test_instance_has_ordinary_defaults() -> None:
    made = instance()
    assert (made.weight, made.zone, made.version, made.status) == (1.0, "", "", Status.SERVING)
    assert made.metadata == {}


@pytest.mark.parametrize("weight", [0, 0.0, 0.5, 1, 1_000_000])
def test_weight_in_range_is_accepted(weight: float) -> None:
    assert instance(weight=weight).weight == weight


@pytest.mark.parametrize("weight", [-1, -0.001, 1_000_001, float("inf"), float("nan")])
def test_weight_out_of_range_is_refused(weight: float) -> None:
    with pytest.raises(ConfigurationError, match="weight"):
        instance(weight=weight)


@pytest.mark.parametrize(
    "wrong",
    [{"service": ""}, {"service": "a/"}, {"address": "10.0.0.5"}, {"address": "0.0.0.0:50051"}],
)
def test_instance_checks_its_name_and_address(wrong: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError):
        instance(**wrong)


@pytest.mark.parametrize(
    "value",
    [
        Endpoint("greeter/a", "10.0.0.5:50051"),
        instance(),
        Put(Endpoint("greeter/a", "10.0.0.5:50051")),
        Remove("greeter/a"),
        Update((), 1),
        Snapshot("greeter", {}, 1, True),
    ],
)
def test_nouns_are_immutable(value: Any) -> None:
    field = dataclasses.fields(value)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, field, None)
    with pytest.raises((AttributeError, TypeError)):
        value.something_new = 1


@pytest.mark.parametrize("value", [Endpoint("greeter/a", "10.0.0.5:50051"), instance()])
def test_default_metadata_is_not_shared_by_accident(value: Endpoint | Instance) -> None:
    with pytest.raises(TypeError):
        value.metadata["a"] = 1  # type: ignore[index]


def test_change_has_the_key_of_its_endpoint() -> None:
    assert Put(Endpoint("greeter/a", "10.0.0.5:50051")).key == Remove("greeter/a").key == "greeter/a"


def test_status_is_its_text() -> None:
    assert Status("draining") is Status.DRAINING
    assert f"{Status.SERVING}" == "serving"
