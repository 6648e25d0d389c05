"""Target URIs: ``etcd:///service``, and nothing that only looks like it."""

from __future__ import annotations

from typing import Any

import pytest

from etcd_grpc.errors import ConfigurationError
from etcd_grpc.target import Target, parse_target


@pytest.mark.parametrize(
    ("target", "service"),
    [
        ("etcd:///helloworld.Greeter", "helloworld.Greeter"),
        ("etcd:///prod/greeter", "prod/greeter"),
        ("etcd:///prod%2Fgreeter", "prod/greeter"),
        ("etcd:///a%20b", "a b"),
        ("etcd:///100%25", "100%"),
        ("etcd:///what%3F", "what?"),
        ("etcd:///gr%C3%BC%C3%9Fe", "grüße"),
        ("etcd:///grüße", "grüße"),
        ("ETCD:///greeter", "greeter"),  # a URI's scheme is case-insensitive
    ],
)
def test_target_names_a_service(target: str, service: str) -> None:
    assert parse_target(target) == Target(service)


def test_target_is_shown_as_it_is_written() -> None:
    assert str(parse_target("etcd:///prod/greeter")) == "etcd:///prod/greeter"


@pytest.mark.parametrize(
    "target",
    [
        "",
        "greeter",
        "localhost:50051",
        "dns:///greeter",
        "etcd:greeter",
        "etcd:",
        "etcd://",
        "etcd:///",
        "etcd://greeter",
        "etcd:////greeter",
        "etcd:///greeter/",
        "etcd:///a//b",
        "etcd:///%2Fgreeter",
        "etcd://[/greeter",
        "etcd:///%ff",
        "etcd:///%00",
        "etcd:///a%0Ab",
        "etcd:///a%1B[31m",
        "etcd:///" + "a" * 513,
    ],
)
def test_malformed_target_is_refused_and_the_right_form_shown(target: str) -> None:
    with pytest.raises(ConfigurationError, match=r"etcd:///SERVICE"):
        parse_target(target)


@pytest.mark.parametrize("target", [None, 5, b"etcd:///greeter", object()])
def test_what_is_no_string_is_refused(target: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"etcd:///SERVICE"):
        parse_target(target)


@pytest.mark.parametrize(
    "target",
    [
        "etcd://10.0.0.1:2379/greeter",
        "etcd://cluster/greeter",
        "etcd:///greeter#a",
    ],
)
def test_reserved_parts_are_refused_not_ignored(target: str) -> None:
    with pytest.raises(ConfigurationError):
        parse_target(target)


def test_a_query_says_what_instances_must_have() -> None:
    target = parse_target("etcd:///prod/greeter?version=v2&zone=eu-1a&shard=3&note=a%20b")
    assert target.service == "prod/greeter"
    wanted = (("version", "v2"), ("zone", "eu-1a"), ("shard", "3"), ("note", "a b"))
    assert target.query == wanted
    assert str(target) == "etcd:///prod/greeter?version=v2&zone=eu-1a&shard=3&note=a b"
    assert parse_target("etcd:///greeter?").query == ()


@pytest.mark.parametrize(
    "query",
    [
        "zone",
        "zone=",
        "=a",
        "zone=a&zone=b",
        "zone=a&&version=b",
        "zone=%ff",
        "&".join(f"k{n}=1" for n in range(17)),
    ],
)
def test_a_query_that_says_nothing_clear_is_refused(query: str) -> None:
    with pytest.raises(ConfigurationError, match=r"etcd:///SERVICE"):
        parse_target(f"etcd:///greeter?{query}")


def test_authority_error_says_where_etcd_members_are_named() -> None:
    with pytest.raises(ConfigurationError, match="ETCDCTL_ENDPOINTS"):
        parse_target("etcd://10.0.0.1:2379/greeter")


@pytest.mark.parametrize(
    "target",
    [
        "etcd:///gree\tter",
        "etcd:///gree\nter",
        "etcd:///greeter\r\n",
        " etcd:///greeter",
        "\x1betcd:///a",
    ],
)
def test_control_characters_and_stray_spaces_are_refused_not_dropped(target: str) -> None:
    """``urllib.parse.urlsplit`` strips them silently: "gree\\nter" would become another service."""
    with pytest.raises(ConfigurationError):
        parse_target(target)


@pytest.mark.parametrize(
    "target",
    [
        "etcd://root:hunter2@10.0.0.1:2379/greeter",
        "http://root:hunter2@h/",
        "root:hunter2@10.0.0.1:2379",
        "etcd://root:hunter2@[/greeter",
        "etcd://root:hunter2@10.0.0.1:2379/greeter\n",
        " etcd://root:hunter2@10.0.0.1:2379/greeter",
        "etcd://root:hunter2@\u2100/greeter",  # urlsplit's own message has it
    ],
)
def test_error_shows_no_password_that_stands_in_a_target(target: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_target(target)
    assert "hunter2" not in str(caught.value)
