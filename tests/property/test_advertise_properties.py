"""Whatever is passed and set: what is told to clients can be connected to, or nothing is told."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from etcd_grpc.address import is_loopback
from etcd_grpc.advertise import choose_address
from etcd_grpc.errors import ConfigurationError
from etcd_grpc.model import check_advertised, ip_of, split_address, unusable


def bracketed(ip: str) -> str:
    return f"[{ip}]" if ":" in ip else ip


ips = st.ip_addresses().map(str)
usable_ips = ips.filter(
    lambda ip: not unusable(bracketed(ip)) and not is_loopback(f"{bracketed(ip)}:1")
)
ODD = """
    0.0.0.0 :: [::] 0.1.2.3 127.0.0.1 127.9.9.9 ::1 [::1] localhost a.localhost ::ffff:127.0.0.1
    169.254.169.254 fe80::1 [fe80::1%eth0] 2001:db8::1%eth0 224.0.0.1 ff02::1 255.255.255.255
    0 127.1 0x7f.1 10.0.0.256 http://10.0.0.5 10.0.0.5/24 ä.example 10.0.0.5:50051
    [2001:db8::1]:50051 2001:db8::1 greeter-0.greeter [ ] : %
"""
special = st.sampled_from([*ODD.split(), " 10.0.0.5", "10.0.0 .5", "a\x00b", ""])
hosts = ips | special | st.text(max_size=20)
ports = st.integers(-1, 70000)
here = st.lists(st.sampled_from(["127.0.0.1:2379", "localhost:1", "[::1]:2379"]), min_size=1)
anywhere = st.lists(
    st.sampled_from(["127.0.0.1:2379", "[::1]:2379", "etcd-0:2379", "10.9.9.9:2379"]), min_size=1
)
environs = st.fixed_dictionaries(
    {},
    optional={
        "ETCD_GRPC_ADVERTISE": hosts | st.builds("{}:{}".format, hosts, ports),
        "POD_IP": hosts,
        "HOSTNAME": st.just("greeter-0"),
    },
)
arguments = st.fixed_dictionaries(
    {
        "port": st.none() | ports,
        "host": st.none() | hosts,
        "address": st.none() | st.builds("{}:{}".format, hosts, ports) | hosts,
        "environ": environs,
        "etcd": anywhere,
    }
)


def told(route: str = "10.1.1.1", **given: Any) -> str:
    defaults: dict[str, Any] = {
        "port": None,
        "host": None,
        "address": None,
        "environ": {},
        "etcd": ["10.9.9.9:2379"],
    }
    return choose_address(**{**defaults, **given}, route=lambda: route)


@given(arguments, hosts)
@example(
    {
        "port": 1,
        "host": None,
        "address": None,
        "environ": {"ETCD_GRPC_ADVERTISE": "[::]"},
        "etcd": ["a:1"],
    },
    "10.1.1.1",
)
def test_what_is_told_is_usable_or_the_error_is_ours(given: dict[str, Any], route: str) -> None:
    try:
        address = told(route, **given)
    except ConfigurationError:
        return
    host, port = split_address(address)
    assert 1 <= port <= 65535
    assert check_advertised(address) == address
    assert not unusable(host)
    assert not is_loopback(address) or all(map(is_loopback, given["etcd"]))
    ip = ip_of(host)
    if ip is not None:
        kinds = (ip.is_unspecified, ip.is_multicast, ip.is_link_local, str(ip) == "255.255.255.255")
        assert not any(kinds)
    assert "%" not in host


@given(usable_ips, st.integers(1, 65535), environs, hosts)
def test_explicit_host_beats_the_environment_and_the_route(
    ip: str, port: int, environ: dict[str, str], route: str
) -> None:
    address = told(route, host=ip, port=port, environ=environ)
    assert address == f"{bracketed(ip)}:{port}"
    assert told(route, address=address, environ=environ) == address
    if ":" in ip:
        assert told(route, host=f"[{ip}]", port=port, environ=environ) == address


@given(usable_ips, st.integers(1, 65535), st.none() | hosts, hosts)
def test_variable_beats_the_pod_and_the_route(
    ip: str, port: int, pod_ip: str | None, route: str
) -> None:
    host = bracketed(ip)
    environ = {"ETCD_GRPC_ADVERTISE": host} | ({} if pod_ip is None else {"POD_IP": pod_ip})
    assert told(route, port=port, environ=environ) == f"{host}:{port}"
    environ["ETCD_GRPC_ADVERTISE"] = f"{host}:{port}"
    assert told(route, environ=environ) == f"{host}:{port}"


@given(usable_ips, st.integers(1, 65535), hosts)
def test_pod_ip_beats_the_route(ip: str, port: int, route: str) -> None:
    host = bracketed(ip)
    assert told(route, port=port, environ={"POD_IP": ip}) == f"{host}:{port}"


@given(arguments)
def test_route_is_asked_only_where_nobody_else_knows(given: dict[str, Any]) -> None:
    assume(
        given["host"] is not None
        or given["address"] is not None
        or any(map(given["environ"].get, ("ETCD_GRPC_ADVERTISE", "POD_IP")))
    )

    def route() -> str:
        pytest.fail("the route was asked")

    try:
        choose_address(**given, route=route)
    except ConfigurationError:
        return


@given(st.sampled_from(["127.0.0.1", "127.9.9.9", "::1", "localhost"]), here)
def test_loopback_is_told_where_all_of_etcd_is_here(host: str, etcd: list[str]) -> None:
    assert split_address(told(host, port=1, etcd=etcd))[1] == 1
