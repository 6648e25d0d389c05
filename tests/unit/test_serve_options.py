"""What ``serve`` refuses before anything is bound or written, and what it makes of the rest."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

import etcd_grpc
from etcd_grpc.server.options import (
    LifeOptions,
    LifeSettings,
    ServeOptions,
    ServeSettings,
    serve_options,
)

ELSEWHERE = "10.1.2.3:2379"


@pytest.fixture(autouse=True)
def _no_advertise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ETCD_GRPC_ADVERTISE", raising=False)
    monkeypatch.delenv("ETCDCTL_ENDPOINTS", raising=False)


def options(**settings: Any) -> ServeOptions:
    return serve_options(**{"service": "a.B", **settings})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"service": ()}, "no service is named"),
        ({"service": "a//b"}, "stray slashes"),
        ({"service": ("a", "a")}, "named twice"),
        ({"port": 70000}, "0..65535"),
        ({"port": True}, "0..65535"),
        ({"host": ""}, "host is empty"),
        ({"settle_s": 3, "grace_s": 2}, "grace_s is 2; it must be at least settle_s, 3"),
        ({"settle_s": -1}, "settle_s is -1"),
        ({"max_lag_s": 0}, "max_lag_s is 0"),
        ({"max_workers": 0}, "max_workers is 0"),
        ({"maximum_concurrent_rpcs": 0}, "maximum_concurrent_rpcs is 0"),
        ({"ttl_s": 0}, "ttl_s is 0"),
        ({"id": "a/b"}, "id 'a/b'"),
        ({"weight": -1}, "weight -1"),
        ({"advertise": "0.0.0.0"}, "cannot be advertised"),
        ({"advertise": "::1"}, "IPv6 in brackets"),
    ],
)
def test_refused_with_what_to_set_instead(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(etcd_grpc.ConfigurationError, match=message.replace("(", r"\(")):
        options(**wrong)


def test_an_unknown_argument_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="portt"):
        options(portt=1)


def test_loopback_is_refused_where_etcd_is_elsewhere() -> None:
    with pytest.raises(etcd_grpc.ConfigurationError, match=r'pass host="0\.0\.0\.0"'):
        options(etcd=ELSEWHERE)


@pytest.mark.parametrize(
    ("settings", "environment", "address"),
    [
        ({}, "", "127.0.0.1:5000"),
        ({"host": "::1"}, "", "[::1]:5000"),
        ({"host": "0.0.0.0"}, "", "127.0.0.1:5000"),  # from where etcd is reached
        ({"host": "10.0.0.7", "etcd": ELSEWHERE}, "", "10.0.0.7:5000"),
        ({"advertise": "greeter.example"}, "", "greeter.example:5000"),
        ({"advertise": "greeter.example:80", "etcd": ELSEWHERE}, "", "greeter.example:80"),
        ({}, "greeter.example:80", "greeter.example:80"),
        ({"advertise": "mine.example"}, "greeter.example:80", "mine.example:5000"),
    ],
)
def test_what_clients_are_told(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], environment: str, address: str
) -> None:
    monkeypatch.setenv("ETCD_GRPC_ADVERTISE", environment)
    (planned,) = options(**settings).plans(5000)
    assert planned.instance.address == address


def test_several_services_are_one_instance() -> None:
    first, second = options(service=["a.B", "c.D"], zone="z").plans(5000)
    assert (first.instance.service, second.instance.service) == ("a.B", "c.D")
    assert first.instance.id == second.instance.id
    assert first.instance.zone == second.instance.zone == "z"


def test_an_id_that_metadata_cannot_hold_is_not_told() -> None:
    (plain,) = options(id="greeter-1").plans(5000)
    (chinese,) = options(id="问候-1").plans(5000)
    assert (plain.instance.identified, chinese.instance.identified) == (True, False)
    assert plain.instance.named


def test_types_for_checkers_are_those_of_the_options() -> None:
    life = {field.name: field.type for field in dataclasses.fields(LifeOptions)}
    serve = {
        field.name: field.type for field in dataclasses.fields(ServeOptions) if field.name != "life"
    }
    assert LifeSettings.__annotations__.keys() == life.keys()
    assert ServeSettings.__annotations__.keys() == {**life, **serve}.keys()
