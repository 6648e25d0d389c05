"""Row 33: an address that clients cannot use is refused before anything is written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.etcd import RawEtcd

import etcd_grpc
from etcd_grpc.testing import Cluster

ELSEWHERE = "10.255.255.1:2379"  # as if one more member were on another host
SET_INSTEAD = r"host=.*--host.*ETCD_GRPC_ADVERTISE"
WHICH_PORT = "server.add_insecure_port"


@pytest.fixture(scope="module")
def etcd() -> Iterator[str]:
    with Cluster(1) as cluster:
        yield cluster.endpoints[0]


@pytest.fixture(autouse=True)
def _nothing_is_written(etcd: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Not a key, not even for a moment: the store's revision does not move."""
    monkeypatch.delenv("ETCD_GRPC_ADVERTISE", raising=False)
    monkeypatch.delenv("POD_IP", raising=False)
    with RawEtcd(etcd) as raw:
        before = raw.revision()
        yield
        assert raw.revision() == before
        assert raw.get("test.") == {}


# What is passed, and what the error says.
REFUSED: list[tuple[dict[str, Any], str]] = [
    *(({"port": 50051, "host": host}, SET_INSTEAD) for host in ("0.0.0.0", "::", "[::]", "0.1.2.3")),
    *(({"address": address}, SET_INSTEAD) for address in ("0.0.0.0:50051", "[::]:50051")),
    *(({"port": port, "host": "10.0.0.5"}, WHICH_PORT) for port in (0, 70000, -1)),
    *(({"address": f"10.0.0.5:{port}"}, f"{port} .*not in 1..65535") for port in (0, 70000)),
    *(
        ({"port": 50051, "host": host}, SET_INSTEAD)
        for host in (
            *("169.254.169.254", "fe80::1", "[fe80::1%eth0]", "2001:db8::1%eth0"),
            *("224.0.0.1", "ff02::1", "255.255.255.255", "0", "127.1", "10.0.0.256"),
            *("10.0.0. 5", "10.0.0.5\n", "ä.example", "a" * 300),
        )
    ),
    ({"port": 50051, "host": "http://10.0.0.5"}, r"scheme.*such as 10\.0\.0\.5:50051"),
    ({"address": "grpc://10.0.0.5:50051"}, r"scheme.*such as 10\.0\.0\.5:50051"),
    ({"port": 50051, "host": "10.0.0.5:50051"}, "without a port"),
    ({"port": 50051, "host": ""}, SET_INSTEAD),
    ({}, WHICH_PORT),
]


@pytest.mark.parametrize(("given", "says"), REFUSED)
@pytest.mark.parametrize("register", [etcd_grpc.register, etcd_grpc.aio.register])
def test_row_33_address_that_nobody_can_use(etcd, register, given, says):
    with pytest.raises(etcd_grpc.ConfigurationError, match=f"(?s){says}"):
        register("test.Greeter", etcd=etcd, **given)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("register", [etcd_grpc.register, etcd_grpc.aio.register])
def test_row_33_loopback_where_one_member_is_on_another_host(etcd, register, host):
    with pytest.raises(etcd_grpc.ConfigurationError, match=rf"loopback.*10\.255.*{SET_INSTEAD}"):
        register("test.Greeter", port=50051, host=host, etcd=[etcd, ELSEWHERE])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("ETCD_GRPC_ADVERTISE", host) for host in ("0.0.0.0", "[::]", "0.0.0.0:6000", "224.0.0.1")),
        *(("ETCD_GRPC_ADVERTISE", address) for address in ("10.0.0.7:0", "10.0.0.7:70000", ":6000")),
        *(("ETCD_GRPC_ADVERTISE", host) for host in ("http://10.0.0.7", "a b", "2001:db8::7")),
        *(("POD_IP", ip) for ip in ("0.0.0.0", "::", "fe80::1", "greeter-0", "10.0.0.7,2001:db8::7")),
    ],
)
def test_row_33_environment_that_nobody_can_use_is_named(etcd, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(etcd_grpc.ConfigurationError, match=name):
        etcd_grpc.register("test.Greeter", port=50051, etcd=etcd)


def test_row_33_route_to_an_etcd_on_another_host_is_not_loopback(etcd, monkeypatch):
    """Whatever this machine's routes are: never a loopback address for an etcd that is elsewhere."""
    from etcd_grpc.advertise import advertised
    from etcd_grpc.config import EtcdConfig

    config = EtcdConfig((ELSEWHERE, etcd))
    address = refused = ""
    try:
        address = advertised(config, 50051, None, None)
    except etcd_grpc.ConfigurationError as error:
        refused = str(error)  # there is no such route here, or only by loopback
    assert address or re.search(SET_INSTEAD, refused)
    assert not address.startswith(("127.", "localhost", "[::1]"))
