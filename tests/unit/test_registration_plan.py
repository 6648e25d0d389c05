"""What ``register`` checks before anything is written: above all, what clients are told."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from etcd_grpc import aio
from etcd_grpc.advertise import advertised
from etcd_grpc.config import EtcdConfig
from etcd_grpc.errors import ConfigurationError
from etcd_grpc.registration import Plan, plan, register

ELSEWHERE = EtcdConfig(("10.9.9.9:2379",))
HERE = EtcdConfig(("127.0.0.1:2379",))


def planned(**arguments: Any) -> Plan:
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(register).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }
    return plan(
        "greeter", **{**defaults, "port": 50051, "host": "10.0.0.5", "etcd": ELSEWHERE, **arguments}
    )


def told(
    config: EtcdConfig = ELSEWHERE,
    *,
    port: int | None = None,
    host: str | None = None,
    address: str | None = None,
) -> str:
    return advertised(config, port, host, address)


# The address.


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ({"host": "10.0.0.5", "port": 50051}, "10.0.0.5:50051"),
        ({"host": "greeter-0.greeter", "port": 1}, "greeter-0.greeter:1"),
        ({"host": "2001:db8::1", "port": 65535}, "[2001:db8::1]:65535"),
        ({"host": "[2001:db8::1]", "port": 50051}, "[2001:db8::1]:50051"),
        ({"address": "10.0.0.5:50051"}, "10.0.0.5:50051"),
        ({"address": "[2001:db8::1]:50051"}, "[2001:db8::1]:50051"),
    ],
)
def test_given_address_is_told(given: dict[str, Any], address: str) -> None:
    assert told(**given) == address


@pytest.mark.parametrize(
    ("variable", "given", "address"),
    [
        ("10.0.0.7", {"port": 50051}, "10.0.0.7:50051"),
        ("10.0.0.7:6000", {}, "10.0.0.7:6000"),
        ("10.0.0.7:6000", {"port": 50051}, "10.0.0.7:50051"),
        ("greeter.example", {"port": 50051}, "greeter.example:50051"),
        ("[2001:db8::7]", {"port": 50051}, "[2001:db8::7]:50051"),
        ("[2001:db8::7]:6000", {}, "[2001:db8::7]:6000"),
        ("[2001:db8::7]:6000", {"port": 50051}, "[2001:db8::7]:50051"),
        ("10.0.0.7:6000", {"address": "10.0.0.5:50051"}, "10.0.0.5:50051"),
        ("10.0.0.7", {"host": "10.0.0.5", "port": 50051}, "10.0.0.5:50051"),
    ],
)
def test_variable_is_told_where_nothing_is_given(
    variable: str, given: dict[str, Any], address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ETCD_GRPC_ADVERTISE", variable)
    assert told(**given) == address


@pytest.mark.parametrize(
    "variable", ["10.0.0.7:0", "10.0.0.7:70000", "10.0.0.7:http", ":6000", "2001:db8::7"]
)
def test_malformed_variable_is_refused(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ETCD_GRPC_ADVERTISE", variable)
    with pytest.raises(ConfigurationError):
        told(port=50051)


@pytest.mark.parametrize("variable", ["0.0.0.0", "[::]", "0.0.0.0:6000"])
def test_unspecified_address_in_the_variable_is_refused(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ETCD_GRPC_ADVERTISE", variable)
    with pytest.raises(ConfigurationError, match="cannot be advertised"):
        planned(host=None)


def test_local_address_towards_etcd_is_told_where_nothing_else_is_known() -> None:
    assert told(HERE, port=50051) == "127.0.0.1:50051"


def test_etcd_whose_address_cannot_be_found_is_an_error_that_says_what_to_pass() -> None:
    with pytest.raises(ConfigurationError, match=r"host=.*ETCD_GRPC_ADVERTISE"):
        told(EtcdConfig(("a" * 70 + ":2379",)), port=50051)  # no label of a name is that long


# The port.


@pytest.mark.parametrize("port", [0, -1, 65536, 70000, True, "50051", 50051.0])
def test_port_that_no_server_has_is_refused_and_the_right_one_named(port: Any) -> None:
    with pytest.raises(ConfigurationError, match="add_insecure_port"):
        planned(port=port)


def test_neither_port_nor_address_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="neither port nor address"):
        planned(port=None)


def test_variable_without_a_port_does_not_stand_in_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ETCD_GRPC_ADVERTISE", "10.0.0.7")
    with pytest.raises(ConfigurationError, match="neither port nor address"):
        told()


@pytest.mark.parametrize(
    "given", [{"port": 50051}, {"host": "10.0.0.5"}, {"port": 50051, "host": "10.0.0.5"}]
)
def test_address_beside_port_or_host_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="either address, or port and host"):
        told(address="10.0.0.5:50051", **given)


@pytest.mark.parametrize(
    "address", ["", "10.0.0.5", ":50051", "10.0.0.5:0", "10.0.0.5:70000", "2001:db8::1:50051"]
)
def test_malformed_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigurationError):
        told(address=address)


# Addresses that clients cannot use.


@pytest.mark.parametrize(
    "given",
    [
        {"host": "0.0.0.0"},
        {"host": "::"},
        {"host": "[::]"},
        {"host": "::0"},
        {"host": None, "port": None, "address": "0.0.0.0:50051"},
        {"host": None, "port": None, "address": "[::]:50051"},
    ],
)
def test_unspecified_address_is_refused_and_the_way_out_named(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"host=.*ETCD_GRPC_ADVERTISE"):
        planned(**given)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost", "Localhost", "::ffff:127.0.0.1"],
)
def test_loopback_is_refused_where_etcd_is_on_another_host(host: str) -> None:
    with pytest.raises(ConfigurationError, match=r"loopback.*10\.9\.9\.9"):
        planned(host=host)


def test_loopback_is_refused_where_one_member_of_etcd_is_on_another_host() -> None:
    with pytest.raises(ConfigurationError, match="loopback"):
        planned(host="127.0.0.1", etcd="127.0.0.1:2379,10.9.9.9:2379")


@pytest.mark.parametrize(
    "etcd", ["127.0.0.1:2379", "localhost:2379", "[::1]:2379", "127.0.0.1:1,[::1]:2"]
)
@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_loopback_is_accepted_where_all_of_etcd_is_here(host: str, etcd: str) -> None:
    assert planned(host=host, etcd=etcd).instance.address.endswith(":50051")


def test_address_elsewhere_is_accepted_where_etcd_is_here() -> None:
    assert planned(etcd=HERE).instance.address == "10.0.0.5:50051"


# Everything else.


@pytest.mark.parametrize("ttl_s", [0, -1, 1.5, "10", None, True, 9_000_000_001])
def test_ttl_that_etcd_would_refuse_is_refused(ttl_s: Any) -> None:
    with pytest.raises(ConfigurationError, match="ttl_s"):
        planned(ttl_s=ttl_s)


@pytest.mark.parametrize("ttl_s", [1, 10, 9_000_000_000])
def test_ttl_in_whole_seconds_is_kept(ttl_s: int) -> None:
    assert planned(ttl_s=ttl_s).ttl_s == ttl_s


@pytest.mark.parametrize("name", ["settle_s", "timeout_s"])
@pytest.mark.parametrize("value", [-1, -0.1, float("nan")])
def test_negative_time_is_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigurationError, match=name):
        planned(**{name: value})


@pytest.mark.parametrize("weight", [-1, float("nan"), 2e6])
def test_weight_out_of_range_is_refused(weight: float) -> None:
    with pytest.raises(ConfigurationError, match="weight"):
        planned(weight=weight)


def test_plan_has_all_that_was_given() -> None:
    made = planned(
        id="i-1", weight=2, zone="a", version="v2", metadata={"k": 1}, settle_s=0, timeout_s=3
    )
    instance = made.instance
    assert (instance.service, instance.address, instance.id) == ("greeter", "10.0.0.5:50051", "i-1")
    assert (instance.weight, instance.zone, instance.version) == (2, "a", "v2")
    assert instance.metadata == {"k": 1}
    assert (made.etcd, made.settle_s, made.timeout_s) == (ELSEWHERE, 0, 3)


def test_each_registration_has_an_id_of_its_own() -> None:
    assert planned().instance.id != planned().instance.id


def test_metadata_changed_afterwards_is_not_registered() -> None:
    metadata = {"k": 1}
    made = planned(metadata=metadata)
    metadata["k"] = 2
    assert made.instance.metadata == {"k": 1}


def test_wrong_etcd_is_refused() -> None:
    with pytest.raises(ConfigurationError):
        planned(etcd="10.9.9.9")


@pytest.mark.parametrize("function", [register, aio.register])
@pytest.mark.parametrize(
    "wrong", [{"port": 0}, {"port": 50051, "host": "0.0.0.0"}, {"port": 50051, "ttl_s": 0}, {}]
)
def test_wrong_argument_is_an_error_at_the_call_and_etcd_is_not_asked(
    function: Any, wrong: dict[str, Any]
) -> None:
    with pytest.raises(ConfigurationError):
        function("greeter", etcd=ELSEWHERE, **wrong)
