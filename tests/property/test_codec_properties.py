"""Whatever can be registered is read back as it was; whatever stands in etcd is read or refused."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from etcd_grpc.codec import Entry, NamingCodec
from etcd_grpc.errors import StoredDataError
from etcd_grpc.model import Endpoint, Instance, Status, split_address, unusable

CODEC = NamingCodec()

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=15,
)

ports = st.integers(1, 65535)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,30}", fullmatch=True)
hosts = (
    names | st.ip_addresses(v=4).map(str) | st.ip_addresses(v=6).map(lambda address: f"[{address}]")
).filter(lambda host: not unusable(host))
addresses = st.builds(lambda host, port: f"{host}:{port}", hosts, ports)
services = (
    st.lists(
        st.text(max_size=12).filter(lambda part: part and part.isprintable() and "/" not in part),
        min_size=1,
        max_size=3,
    )
).map("/".join)

instances = st.builds(
    Instance,
    service=services,
    address=addresses,
    id=st.text(max_size=36),
    weight=st.floats(0, 1e6) | st.integers(0, 1_000_000),
    zone=st.text(max_size=12),
    version=st.text(max_size=12),
    status=st.sampled_from(Status),
    metadata=st.dictionaries(st.text(max_size=8), json_values, max_size=4),
)


@given(instances, st.integers(1, 2**62))
def test_instance_is_read_back_with_the_same_facts(instance: Instance, revision: int) -> None:
    key, value = CODEC.encode(instance)
    assert key.startswith(CODEC.prefix(instance.service))
    assert CODEC.decode(Entry(key, value, revision)) == Endpoint(
        key=f"{instance.service}/{instance.address}",
        address=instance.address,
        id=instance.id,
        weight=float(instance.weight),
        zone=instance.zone,
        version=instance.version,
        status=instance.status,
        protocol="grpc",
        metadata=instance.metadata,
        revision=revision,
    )


@given(instances)
def test_value_is_compact_json_with_gos_escapes_and_sorted_keys(instance: Instance) -> None:
    _, value = CODEC.encode(instance)
    text = value.decode()
    assert not set(text) & set("<>&\u2028\u2029")
    parsed = json.loads(text)
    assert list(parsed) == ["Op", "Addr", "Metadata"]
    in_order(parsed["Metadata"])
    assert len(text) == len(text.strip())


def in_order(value: Any) -> None:
    """Check that the keys of every map in ``value`` are sorted as Go sorts them."""
    if isinstance(value, dict):
        assert list(value) == sorted(value, key=lambda key: key.encode())
        for inner in value.values():
            in_order(inner)
    elif isinstance(value, list):
        for inner in value:
            in_order(inner)


def decoded(key: bytes, value: bytes) -> Endpoint | StoredDataError:
    """The endpoint, or why there is none; any other error fails the test."""
    try:
        return CODEC.decode(Entry(key, value, 1))
    except StoredDataError as refused:
        return refused


def read_or_refused(key: bytes, value: bytes) -> None:
    found = decoded(key, value)
    if isinstance(found, StoredDataError):
        assert str(found).isprintable()
        assert len(str(found)) < 1500
    else:
        split_address(found.address)
        assert 0 <= found.weight <= 1e6
        assert isinstance(found.status, Status)
        assert found.key.isprintable()


@given(st.binary(max_size=300))
def test_any_bytes_are_an_endpoint_or_stored_data_error(value: bytes) -> None:
    read_or_refused(b"greeter/a", value)


@given(st.binary(max_size=50))
def test_any_key_is_an_endpoint_or_stored_data_error(key: bytes) -> None:
    read_or_refused(key, b'{"Addr":"10.0.0.5:50051"}')


fields = ["Op", "Addr", "Metadata", "id", "weight", "zone", "version", "status", "protocol", "metadata"]
lookalikes = st.recursive(
    json_values | addresses | st.sampled_from(["serving", "draining", ""]),
    lambda inner: st.dictionaries(st.sampled_from(fields), inner, max_size=6),
    max_leaves=10,
)


@given(lookalikes)
@example({"Addr": "10.0.0.5:50051", "Metadata": {"weight": 10**400}})
@example({"Addr": "10.0.0.5:50051", "Metadata": {"metadata": {"a": 10**400}}})
def test_json_that_looks_like_ours_is_an_endpoint_or_stored_data_error(value: Any) -> None:
    read_or_refused(b"greeter/a", json.dumps(value).encode())


@given(addresses, json_values)
def test_any_metadata_that_is_no_object_is_an_endpoint_with_defaults(
    address: str, metadata: Any
) -> None:
    if isinstance(metadata, dict):
        metadata = [metadata]
    if not fits(metadata):
        return
    value = json.dumps({"Op": 0, "Addr": address, "Metadata": metadata}).encode()
    assert CODEC.decode(Entry(b"greeter/a", value, 3)) == Endpoint("greeter/a", address, revision=3)


def fits(value: Any) -> bool:
    """Whether ``value`` is JSON that every reader takes: no lone surrogates."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


@given(instances, st.data())
def test_damaged_value_is_an_endpoint_or_stored_data_error(
    instance: Instance, data: st.DataObject
) -> None:
    key, value = CODEC.encode(instance)
    start = data.draw(st.integers(0, len(value)))
    end = data.draw(st.integers(start, min(len(value), start + 20)))
    read_or_refused(key, value[:start] + data.draw(st.binary(max_size=10)) + value[end:])
