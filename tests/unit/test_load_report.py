"""Load reports in both of their forms: what is written can be read, what is hostile is no report."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given
from hypothesis import strategies as st

from etcd_grpc.errors import ConfigurationError
from etcd_grpc.load_report import (
    MAX_NAMED,
    OrcaLoadReport,
    decode_text,
    encode_binary,
    encode_text,
)

FULL = OrcaLoadReport(
    cpu_utilization=0.31,
    mem_utilization=0.5,
    application_utilization=1.25,
    rps_fractional=120.5,
    eps=2,
    named_metrics={"in_flight": 3, "queue/depth": 0},
)

# Shares and rates as they occur; six digits of them are kept.
numbers = st.floats(min_value=0, max_value=1e12).map(lambda value: float(f"{value:.6g}"))
names = st.from_regex(r"[A-Za-z0-9_./-]{1,64}", fullmatch=True)
reports = st.builds(
    OrcaLoadReport,
    cpu_utilization=numbers,
    mem_utilization=numbers,
    application_utilization=numbers,
    rps_fractional=numbers,
    eps=numbers,
    named_metrics=st.dictionaries(names, numbers, max_size=MAX_NAMED),
)


def message() -> Any:
    """``OrcaLoadReport`` as in xds/data/orca/v3/orca_load_report.proto, without what we do not send."""
    file = descriptor_pb2.FileDescriptorProto(name="orca.proto", package="orca", syntax="proto3")
    made = file.message_type.add(name="OrcaLoadReport")
    label, double = descriptor_pb2.FieldDescriptorProto, descriptor_pb2.FieldDescriptorProto.TYPE_DOUBLE
    for name, number in (
        ("cpu_utilization", 1),
        ("mem_utilization", 2),
        ("rps_fractional", 6),
        ("eps", 7),
        ("application_utilization", 9),
    ):
        made.field.add(name=name, number=number, type=double, label=label.LABEL_OPTIONAL)
    entry = made.nested_type.add(name="NamedMetricsEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=label.TYPE_STRING, label=label.LABEL_OPTIONAL)
    entry.field.add(name="value", number=2, type=double, label=label.LABEL_OPTIONAL)
    made.field.add(
        name="named_metrics",
        number=8,
        type=label.TYPE_MESSAGE,
        type_name=".orca.OrcaLoadReport.NamedMetricsEntry",
        label=label.LABEL_REPEATED,
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("orca.OrcaLoadReport"))


MESSAGE = message()


def test_the_text_is_that_of_the_orca_document() -> None:
    assert encode_text(FULL) == (
        "TEXT cpu_utilization=0.31,mem_utilization=0.5,rps_fractional=120.5,eps=2,"
        "application_utilization=1.25,named_metrics.in_flight=3,named_metrics.queue/depth=0"
    )


@given(reports)
def test_what_is_written_as_text_is_read_back(report: OrcaLoadReport) -> None:
    text = encode_text(report)
    assert text.isascii()
    assert text.isprintable()
    assert decode_text(text) == report


@given(reports)
def test_protobuf_reads_the_message(report: OrcaLoadReport) -> None:
    read = MESSAGE.FromString(encode_binary(report))
    assert dict(read.named_metrics) == report.named_metrics
    for field in dataclasses.fields(report):
        if field.name != "named_metrics":
            assert getattr(read, field.name) == getattr(report, field.name)


def test_the_longest_report_leaves_room_in_the_metadata() -> None:
    longest = OrcaLoadReport(
        *(123456.7e30,) * 5,
        named_metrics={f"{number:064}": 0.123456e-200 for number in range(MAX_NAMED)},
    )
    text, message = encode_text(longest), encode_binary(longest)
    assert len(text) + len(message) * 4 / 3 < 8192 / 2
    assert decode_text(text) is not None
    assert len(MESSAGE.FromString(message).named_metrics) == MAX_NAMED


def test_other_writers_are_understood() -> None:
    assert decode_text(
        "TEXT cpu_utilization=0.3, eps = 1,\tnamed_metrics.a=.5".replace("=.", "=0.")
    ) == (OrcaLoadReport(cpu_utilization=0.3, eps=1, named_metrics={"a": 0.5}))
    assert decode_text("TEXT cpu_utilization:0.3,rps_fractional:1e3") == OrcaLoadReport(
        cpu_utilization=0.3, rps_fractional=1000
    )


def test_unknown_metrics_are_passed_over() -> None:
    assert decode_text("TEXT eps=1,utilization.disk=0.5,request_cost.x=7") == OrcaLoadReport(eps=1)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "TEXT",
        "TEXT ",
        "TEXT eps",
        "TEXT eps=",
        "TEXT =1",
        "TEXT eps=1,",
        "TEXT eps=1,eps=2",
        "TEXT eps=-1",
        "TEXT eps=nan",
        "TEXT eps=inf",
        "TEXT eps=infinity",
        "TEXT eps=1e999",
        "TEXT eps=1_000",
        "TEXT eps=\u0663",
        "TEXT eps=0x1p3",
        "TEXT eps=" + "9" * 400,
        "TEXT named_metrics.=1",
        "TEXT named_metrics.a b=1",
        "TEXT named_metrics.\x1b[31m=1",
        "TEXT " + ",".join(f"named_metrics.m{n}=1" for n in range(MAX_NAMED + 1)),
        "TEXT " + ",".join(f"unknown{n}=1" for n in range(65)),
        "TEXT " + " " * 5000 + "eps=1",
        'JSON {"eps": 1}',
        "BIN CZqZmZmZmbk/",
        "text eps=1",
    ],
)
def test_what_is_malformed_is_no_report(text: str) -> None:
    assert decode_text(text) is None


@given(st.text(max_size=200))
def test_nothing_that_arrives_raises(text: str) -> None:
    for read in (decode_text(text), decode_text(f"TEXT {text}")):
        assert read is None or read.utilization >= 0


def test_the_application_says_how_full_it_is_before_the_cpu_does() -> None:
    assert OrcaLoadReport(cpu_utilization=0.5).utilization == 0.5
    assert OrcaLoadReport(cpu_utilization=0.5, application_utilization=0.9).utilization == 0.9


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"eps": -1.0}, "eps is -1"),
        ({"cpu_utilization": float("nan")}, "cpu_utilization is nan"),
        ({"named_metrics": {"a": float("inf")}}, "named_metrics.a is inf"),
        ({"named_metrics": {"a,b": 1.0}}, "'a,b'"),
        ({"named_metrics": {"": 1.0}}, "cannot be named"),
        ({"named_metrics": {"x" * 65: 1.0}}, "cannot be named"),
        ({"named_metrics": {str(n): 1.0 for n in range(17)}}, "17 named metrics"),
    ],
)
def test_what_cannot_be_sent_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        OrcaLoadReport(**fields)
