"""The layout of etcd's own naming package: the exact bytes, foreign values, and garbage."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import pytest

from etcd_grpc.codec import Entry, NamingCodec
from etcd_grpc.codec.base import MAX_VALUE_BYTES
from etcd_grpc.errors import ConfigurationError, StoredDataError
from etcd_grpc.model import Endpoint, Instance, Status

KEY = b"helloworld.Greeter/10.0.0.5:50051"


def instance(**fields: Any) -> Instance:
    return Instance(
        **{"service": "helloworld.Greeter", "address": "10.0.0.5:50051", "id": "i-1", **fields}
    )


def encoded(**fields: Any) -> bytes:
    return NamingCodec().encode(instance(**fields))[1]


def metadata_of(value: bytes) -> bytes:
    """What stands between ``"metadata":`` and the next field of ours."""
    return value.partition(b',"metadata":')[2].partition(b',"protocol":')[0]


def decode(value: bytes | None, key: bytes = KEY, revision: int = 7) -> Endpoint:
    return NamingCodec().decode(Entry(key, value, revision))


# The key.


@pytest.mark.parametrize(
    ("service", "prefix"), [("greeter", b"greeter/"), ("prod/grüße", b"prod/gr\xc3\xbc\xc3\x9fe/")]
)
def test_prefix_ends_in_a_slash(service: str, prefix: bytes) -> None:
    assert NamingCodec().prefix(service) == prefix


def test_key_is_service_and_address_without_a_leading_slash() -> None:
    assert NamingCodec().encode(instance())[0] == KEY


def test_key_stands_under_the_prefix_of_its_service_only() -> None:
    key, _ = NamingCodec().encode(instance(service="demo-b"))
    assert key.startswith(NamingCodec().prefix("demo-b"))
    assert not key.startswith(NamingCodec().prefix("demo"))


# The value: what Go's json.Marshal would write.


def test_value_has_gos_bytes() -> None:
    assert encoded() == (
        b'{"Op":0,"Addr":"10.0.0.5:50051","Metadata":{"id":"i-1","metadata":{},"protocol":"grpc",'
        b'"status":"serving","version":"","weight":1,"zone":""}}'
    )


def test_value_has_every_fact_of_the_instance() -> None:
    value = encoded(
        address="[2001:db8::1]:50051",
        weight=2.5,
        zone="eu-1",
        version="v2",
        status=Status.DRAINING,
        metadata={"b": [1, None, True], "a": {"z": "y", "k": 0.5}},
    )
    assert value == (
        b'{"Op":0,"Addr":"[2001:db8::1]:50051","Metadata":{"id":"i-1",'
        b'"metadata":{"a":{"k":0.5,"z":"y"},"b":[1,null,true]},"protocol":"grpc",'
        b'"status":"draining","version":"v2","weight":2.5,"zone":"eu-1"}}'
    )


@pytest.mark.parametrize(
    ("weight", "text"),
    [
        (0, b"0"),
        (1.0, b"1"),
        (2, b"2"),
        (1e6, b"1000000"),
        (0.5, b"0.5"),
        (0.1, b"0.1"),
        (1 / 3, b"0.3333333333333333"),
        (0.00001, b"0.00001"),
        (0.000001, b"0.000001"),  # Go's exponents begin below 1e-6 ...
        (0.0000001, b"1e-7"),  # ... and have no leading zero
    ],
)
def test_weight_is_written_as_go_writes_it_and_whole_ones_as_integers(
    weight: float, text: bytes
) -> None:
    assert b'"weight":' + text + b',"zone"' in encoded(weight=weight)


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("<script>", rb"\u003cscript\u003e"),
        ("a&b", rb"a\u0026b"),
        ("\u2028\u2029", rb"\u2028\u2029"),
        ('"', rb"\""),
        ("\\", rb"\\"),
        ("/", b"/"),
        ("\n\r\t", rb"\n\r\t"),
        ("\x00\x1b\x1f", rb"\u0000\u001b\u001f"),
        ("\x7f", b"\x7f"),
        ("grüße", "grüße".encode()),
        ("\U0001f600", "\U0001f600".encode()),
        ("\\u003c", rb"\\u003c"),
    ],
)
def test_text_is_escaped_as_go_escapes_it(text: str, escaped: bytes) -> None:
    assert metadata_of(encoded(metadata={"k": text})) == b'{"k":"' + escaped + b'"}'
    assert metadata_of(encoded(metadata={text: 1})) == b'{"' + escaped + b'":1}'
    assert b'"zone":"' + escaped + b'"' in encoded(zone=text)


def test_map_keys_are_sorted_by_their_bytes_at_every_depth() -> None:
    value = metadata_of(
        encoded(metadata={"b": 1, "a": {"ä": 1, "z": 2, "Z": 3}, "": 0, "\uffff": 1, "\U00010000": 2})
    )
    assert value == '{"":0,"a":{"Z":3,"z":2,"ä":1},"b":1,"\uffff":1,"\U00010000":2}'.encode()


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.5, b"0.5"),
        (-1.25, b"-1.25"),
        (2.0, b"2"),
        (-3.0, b"-3"),
        (1234567.125, b"1234567.125"),
        (0.00001, b"0.00001"),
        (1.5e-9, b"1.5e-9"),
        (-2.5e-10, b"-2.5e-10"),
        (5e-324, b"5e-324"),
        (1.7976931348623157e308, b"1.7976931348623157e+308"),
        (1.2345e22, b"1.2345e+22"),
        (1e16, b"10000000000000000"),
        (1e20, b"100000000000000000000"),
        (1e21, b"1e+21"),
        (1e-6, b"0.000001"),
        (1e-7, b"1e-7"),
    ],
)
def test_floats_of_the_users_metadata_are_written_as_go_writes_them(number: float, text: bytes) -> None:
    assert metadata_of(encoded(metadata={"k": number})) == b'{"k":' + text + b"}"


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ((1, "a"), b'[1,"a"]'),
        (MappingProxyType({"b": 1, "a": 2}), b'{"a":2,"b":1}'),
        (10**30, b"1" + b"0" * 30),
        (True, b"true"),
        (Status.SERVING, b'"serving"'),
    ],
)
def test_what_python_has_beside_jsons_own_types_is_written_as_they_are(given: Any, text: bytes) -> None:
    assert metadata_of(encoded(metadata={"k": given})) == b'{"k":' + text + b"}"


def test_same_instance_gives_the_same_bytes_whatever_the_order_of_its_metadata() -> None:
    assert encoded(metadata={"a": 1, "b": 2}) == encoded(metadata={"b": 2, "a": 1})


# Metadata that is not JSON.


def nested(depth: int) -> dict[str, Any]:
    innermost: dict[str, Any] = {}
    for _ in range(depth):
        innermost = {"a": innermost}
    return innermost


def circular() -> dict[str, Any]:
    made: dict[str, Any] = {}
    made["k"] = [made]
    return made


@pytest.mark.parametrize(
    "metadata",
    [
        {"k": object()},
        {"k": {1: 2}},
        {1: 2},
        {"k": 1, 2: 3},
        {"k": "\ud800"},
        {"k": float("nan")},
        {"k": float("inf")},
        {"k": b"bytes"},
        {"k": {1, 2}},
        {"k": [{"a": float("nan")}]},
        nested(20_000),
        circular(),
    ],
    ids=[
        *("object", "inner key", "key", "mixed keys", "surrogate", "nan", "inf", "bytes", "set"),
        *("inner nan", "too deep", "circular"),
    ],
)
def test_metadata_that_is_not_json_is_refused(metadata: dict[Any, Any]) -> None:
    with pytest.raises(ConfigurationError, match="not JSON"):
        encoded(metadata=metadata)


@pytest.mark.parametrize("field", ["id", "zone", "version"])
def test_text_that_is_not_unicode_is_refused(field: str) -> None:
    with pytest.raises(ConfigurationError):
        encoded(**{field: "\ud800"})


def test_value_that_readers_would_refuse_is_not_written() -> None:
    with pytest.raises(ConfigurationError, match="shorten its metadata"):
        encoded(metadata={"k": "x" * MAX_VALUE_BYTES})


def test_value_of_the_largest_size_is_written_and_read() -> None:
    room = MAX_VALUE_BYTES - len(encoded(metadata={"k": ""}))
    value = encoded(metadata={"k": "x" * room})
    assert len(value) == MAX_VALUE_BYTES
    assert decode(value).metadata == {"k": "x" * room}


# Reading.


def test_own_value_is_read_back() -> None:
    written = instance(weight=2, zone="eu-1", version="v2", status=Status.DRAINING, metadata={"a": [1]})
    key, value = NamingCodec().encode(written)
    assert decode(value, key, revision=42) == Endpoint(
        key="helloworld.Greeter/10.0.0.5:50051",
        address="10.0.0.5:50051",
        id="i-1",
        weight=2.0,
        zone="eu-1",
        version="v2",
        status=Status.DRAINING,
        protocol="grpc",
        metadata={"a": [1]},
        revision=42,
    )


@pytest.mark.parametrize(
    "value",
    [
        b'{"Op":0,"Addr":"10.0.0.5:50051","Metadata":null}',
        b'{"Op":0,"Addr":"10.0.0.5:50051"}',
        b'{"Addr":"10.0.0.5:50051"}',
        b'{"Metadata":{},"Addr":"10.0.0.5:50051","Op":0}',
        b'{"Op":0,"Addr":"10.0.0.5:50051","Metadata":"free text"}',
        b'{"Op":0,"Addr":"10.0.0.5:50051","Metadata":17}',
        b'{"Op":0,"Addr":"10.0.0.5:50051","Metadata":false}',
        b'{"Op":0,"Addr":"10.0.0.5:50051","Metadata":["a",1]}',
        b'{"Op":0,"Addr":"10.0.0.5:50051","Metadata":{"team":"payments","Weight":"x"}}',
        b'{"Op":0,"Addr":"10.0.0.5:50051","Metadata":{"id":null,"weight":null,"zone":null,'
        b'"version":null,"status":null,"protocol":null,"metadata":null}}',
        b'{"Op":0,"Addr":"10.0.0.5:50051","Metadata":null,"Extra":{"a":[1,2]}}',
        b'{ "Op" : 0 ,\n\t"Addr" : "10.0.0.5:50051" , "Metadata" : null }\n',
    ],
)
def test_foreign_value_is_an_endpoint_with_defaults(value: bytes) -> None:
    assert decode(value) == Endpoint(KEY.decode(), "10.0.0.5:50051", revision=7)


@pytest.mark.parametrize("op", [b"1", b"-3", b'"add"', b"null", b"[]", b"1.5", b"true"])
def test_stored_op_is_ignored(op: bytes) -> None:
    assert (
        decode(b'{"Op":' + op + b',"Addr":"10.0.0.5:50051","Metadata":null}').address
        == "10.0.0.5:50051"
    )


def test_fields_that_are_there_are_taken_and_the_others_default() -> None:
    found = decode(b'{"Addr":"10.0.0.5:50051","Metadata":{"weight":3,"zone":"a","new":"field"}}')
    assert (found.weight, found.zone, found.version, found.status) == (3.0, "a", "", Status.SERVING)
    assert found.metadata == {}


@pytest.mark.parametrize("weight", [0, 0.5, 1_000_000])
def test_weight_in_range_is_read(weight: float) -> None:
    assert decode(with_metadata(f'{{"weight":{weight}}}'.encode())).weight == weight


def test_key_may_be_anything_under_the_prefix() -> None:
    found = decode(b'{"Addr":"10.0.0.5:50051"}', b"greeter/some-id")
    assert (found.key, found.address) == ("greeter/some-id", "10.0.0.5:50051")


def test_endpoint_metadata_is_read_only() -> None:
    with pytest.raises(TypeError):
        decode(encoded(metadata={"a": 1})).metadata["a"] = 2  # type: ignore[index]


def with_metadata(metadata: bytes) -> bytes:
    return b'{"Op":0,"Addr":"10.0.0.5:50051","Metadata":' + metadata + b"}"


GARBAGE = {
    # Malformed JSON.
    "nothing": b"",
    "space": b" ",
    "text": b"10.0.0.5:50051",
    "truncated": b'{"Op":0,"Addr":"10.0.0.5:5',
    "no closing brace": b'{"Addr":"10.0.0.5:50051"',
    "trailing text": b'{"Addr":"10.0.0.5:50051"}{}',
    "trailing comma": b'{"Addr":"10.0.0.5:50051",}',
    "single quotes": b"{'Addr':'10.0.0.5:50051'}",
    "byte order mark": b'\xef\xbb\xbf{"Addr":"10.0.0.5:50051"}',
    "utf-16": '{"Addr":"10.0.0.5:50051"}'.encode("utf-16"),
    "nan": with_metadata(b'{"weight":NaN}'),
    # Wrong types.
    "null": b"null",
    "array": b"[]",
    "string": b'"10.0.0.5:50051"',
    "number": b"17",
    "empty object": b"{}",
    "no address": b'{"Op":0,"Metadata":null}',
    "null address": b'{"Addr":null}',
    "number address": b'{"Addr":50051}',
    "array address": b'{"Addr":["10.0.0.5:50051"]}',
    "text weight": with_metadata(b'{"weight":"10"}'),
    "bool weight": with_metadata(b'{"weight":true}'),
    "object weight": with_metadata(b'{"weight":{}}'),
    "number zone": with_metadata(b'{"zone":1}'),
    "unknown status": with_metadata(b'{"status":"up"}'),
    "number status": with_metadata(b'{"status":1}'),
    "text metadata": with_metadata(b'{"metadata":"x"}'),
    "array metadata": with_metadata(b'{"metadata":[]}'),
    # Out of range.
    "negative weight": with_metadata(b'{"weight":-1}'),
    "weight just below": with_metadata(b'{"weight":-0.001}'),
    "weight just above": with_metadata(b'{"weight":1000000.5}'),
    "huge weight": with_metadata(b'{"weight":1e7}'),
    "infinite weight": with_metadata(b'{"weight":1e999}'),
    "long weight": with_metadata(b'{"weight":' + b"9" * 400 + b"}"),
    "very long weight": with_metadata(b'{"weight":' + b"9" * 5000 + b"}"),
    "very long number": with_metadata(b"9" * 5000),
    "very long op": b'{"Addr":"10.0.0.5:50051","Op":' + b"9" * 5000 + b"}",
    "port 0": b'{"Addr":"10.0.0.5:0"}',
    "port 70000": b'{"Addr":"10.0.0.5:70000"}',
    "long port": b'{"Addr":"10.0.0.5:' + b"9" * 5000 + b'"}',
    "negative port": b'{"Addr":"10.0.0.5:-1"}',
    "no port": b'{"Addr":"10.0.0.5"}',
    "empty address": b'{"Addr":""}',
    "unix address": b'{"Addr":"unix:/run/greeter.sock"}',
    "address with scheme": b'{"Addr":"dns:///greeter:80"}',
    "two addresses": b'{"Addr":"10.0.0.5:80,10.0.0.6:80"}',
    # 1 MiB.
    "1 MiB of x": b"x" * (1 << 20),
    "1 MiB of metadata": with_metadata(b'"' + b"x" * (1 << 20) + b'"'),
    "one byte too many": with_metadata(
        b'"' + b"x" * (MAX_VALUE_BYTES - len(with_metadata(b'""')) + 1) + b'"'
    ),
    "deep arrays": with_metadata(b"[" * 30_000 + b"]" * 30_000),
    "deep objects": with_metadata(b'{"metadata":' + b'{"a":' * 10_000 + b"1" + b"}" * 10_000 + b"}"),
    # NUL, bad UTF-8, escapes, markup.
    "nul": b"\x00",
    "raw nul in address": b'{"Addr":"10.0.0.5\x00:50051"}',
    "nul in address": b'{"Addr":"10.0.0.5\\u0000:50051"}',
    "newline in address": b'{"Addr":"10.0.0.5:50051\\n"}',
    "bad utf-8": b"\xff\xfe\xfd",
    "bad utf-8 in address": b'{"Addr":"10.0.0.5\xff:50051"}',
    "bad utf-8 in metadata": with_metadata(b'{"zone":"\xff"}'),
    "overlong utf-8": with_metadata(b'{"zone":"\xc0\xaf"}'),
    "encoded surrogate": with_metadata(b'{"zone":"\xed\xa0\x80"}'),
    "escaped surrogate": with_metadata(b'{"zone":"\\ud800"}'),
    "escaped surrogate before text": with_metadata(b'{"zone":"\\ud800abcdef"}'),
    "escaped low surrogate": with_metadata(b'{"zone":"\\udc00abcdef"}'),
    "ansi in address": b'{"Addr":"\\u001b[31m10.0.0.5:50051"}',
    "script in address": b'{"Addr":"<script>alert(1)</script>:50051"}',
    "unicode digits in port": '{"Addr":"10.0.0.5:٨٠"}'.encode(),
    "deleted": None,
}


@pytest.mark.parametrize("value", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_is_stored_data_error_and_nothing_else(value: bytes | None) -> None:
    with pytest.raises(StoredDataError) as caught:
        decode(value)
    complaint = str(caught.value)
    assert "helloworld.Greeter" in complaint  # says which entry
    assert len(complaint) < 1000
    assert complaint.isprintable()


@pytest.mark.parametrize(
    "key",
    [
        b"greeter/\xff",
        b"greeter/\xed\xa0\x80",
        b"greeter/\x00",
        b"greeter/a\nb",
        b"greeter/\x1b[31mred",
        "greeter/\u202eevil".encode(),
        b"greeter/" + b"\x1b" * 100_000,
    ],
    ids=["bad utf-8", "surrogate", "nul", "newline", "ansi", "bidi", "long"],
)
def test_key_that_cannot_be_shown_is_garbage(key: bytes) -> None:
    with pytest.raises(StoredDataError) as caught:
        decode(b'{"Addr":"10.0.0.5:50051"}', key)
    assert len(str(caught.value)) < 1500
    assert str(caught.value).isprintable()


def test_markup_in_free_text_is_kept_for_the_reader_to_escape() -> None:
    found = decode(with_metadata(b'{"zone":"<script>","version":"\\u001b[31m"}'))
    assert (found.zone, found.version) == ("<script>", "\x1b[31m")


def test_that_the_server_tells_its_id_stands_in_the_entry_only_if_it_does() -> None:
    codec = NamingCodec()
    plain = Instance("greeter", "10.0.0.5:50051", "a1")
    telling = Instance("greeter", "10.0.0.5:50051", "a1", identified=True)
    (_, without), (key, value) = codec.encode(plain), codec.encode(telling)
    assert b"identified" not in without
    assert codec.decode(Entry(key, value, 7)).identified
    assert not codec.decode(Entry(key, without, 7)).identified
