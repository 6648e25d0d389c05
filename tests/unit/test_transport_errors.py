"""The one boundary at which gRPC's errors become ours."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf.message import Message

from etcd_grpc.errors import (
    AuthenticationError,
    EtcdError,
    EtcdUnavailableError,
)
from etcd_grpc.etcd import rpc_pb2 as rpc
from etcd_grpc.etcd.failure import LeaseNotFoundError, StaleTokenError, translate

Code = grpc.StatusCode


class Failure(grpc.RpcError):
    """An error as a call raises it."""

    def __init__(self, code: grpc.StatusCode, details: str | None) -> None:
        super().__init__()
        self._code = code
        self._details = details

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str | None:
        return self._details


def translated(code: grpc.StatusCode, details: str | None) -> EtcdError:
    return translate(Failure(code, details), "/etcdserverpb.KV/Range", "10.0.0.1:2379")


# The details are etcd 3.5's own.
@pytest.mark.parametrize(
    ("code", "details", "kind"),
    [
        (Code.UNAVAILABLE, "failed to connect to all addresses", EtcdUnavailableError),
        (Code.UNAVAILABLE, "etcdserver: no leader", EtcdUnavailableError),
        (Code.UNAVAILABLE, "etcdserver: request timed out", EtcdUnavailableError),
        (Code.DEADLINE_EXCEEDED, "Deadline Exceeded", EtcdUnavailableError),
        (Code.CANCELLED, "Channel closed!", EtcdUnavailableError),
        (Code.UNKNOWN, "context deadline exceeded", EtcdUnavailableError),
        (Code.UNAUTHENTICATED, "etcdserver: invalid auth token", StaleTokenError),
        (
            Code.INVALID_ARGUMENT,
            "etcdserver: authentication failed, invalid user ID or password",
            AuthenticationError,
        ),
        (Code.INVALID_ARGUMENT, "etcdserver: user name is empty", AuthenticationError),
        (Code.FAILED_PRECONDITION, "etcdserver: authentication is not enabled", AuthenticationError),
        (Code.PERMISSION_DENIED, "etcdserver: permission denied", AuthenticationError),
        (Code.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded", EtcdError),
        (Code.OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted", EtcdError),
        (Code.NOT_FOUND, "etcdserver: requested lease not found", LeaseNotFoundError),
        (Code.INVALID_ARGUMENT, "etcdserver: revision of auth store is old", StaleTokenError),
        (Code.UNKNOWN, None, EtcdError),
    ],
)
def test_kind_says_who_must_act(
    code: grpc.StatusCode, details: str | None, kind: type[EtcdError]
) -> None:
    assert type(translated(code, details)) is kind


def test_message_names_member_method_and_etcds_words() -> None:
    message = str(translated(Code.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded"))
    for part in ("10.0.0.1:2379", "Range", "database space exceeded"):
        assert part in message


def test_message_names_the_code_where_there_are_no_words() -> None:
    assert "UNKNOWN" in str(translated(Code.UNKNOWN, None))


def test_refused_credentials_say_where_they_come_from() -> None:
    details = "etcdserver: authentication failed, invalid user ID or password"
    assert "ETCDCTL_USER" in str(translated(Code.INVALID_ARGUMENT, details))


@pytest.mark.parametrize(
    ("request_", "hint"),
    [
        (rpc.RangeRequest(key=b"a/", range_end=b"a0"), "read permission on prefix 'a/'"),
        (rpc.RangeRequest(key=b"a/1"), "read permission on key 'a/1'"),
        (rpc.TxnRequest(compare=[rpc.Compare(key=b"a/1")]), "readwrite permission on key 'a/1'"),
    ],
)
def test_missing_permission_is_named_with_its_keys(request_: Message, hint: str) -> None:
    failure = Failure(Code.PERMISSION_DENIED, "etcdserver: permission denied")
    error = translate(failure, "/etcdserverpb.KV/Range", "m", user="app", request=request_)
    assert type(error) is AuthenticationError
    assert hint in str(error)


def test_full_etcd_names_its_alarm_and_the_way_out() -> None:
    said = str(translated(Code.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded"))
    assert "NOSPACE alarm" in said
    assert "alarm disarm" in said


@pytest.mark.parametrize(
    ("details", "hint"),
    [
        ("SSL routines: CERTIFICATE_VERIFY_FAILED: certificate has expired", "ETCDCTL_CACERT"),
        ("Hostname Verification Check failed.", "another name"),
        ("SSLV3_ALERT_BAD_CERTIFICATE", "refused our certificate"),
        ("ipv4:127.0.0.1:1: Socket closed", "https:"),
        ("SSL routines:WRONG_VERSION_NUMBER", "speak TLS"),
    ],
)
def test_tls_failure_says_what_to_look_at(details: str, hint: str) -> None:
    assert hint in str(translated(Code.UNAVAILABLE, details))
