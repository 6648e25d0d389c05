"""The one boundary at which gRPC's errors become ours."""

from __future__ import annotations

import grpc
import pytest

from etcd_grpc.config import EtcdConfig
from etcd_grpc.errors import (
    AuthenticationError,
    EtcdError,
    EtcdUnavailableError,
)
from etcd_grpc.etcd.transport import _credentials, _StaleTokenError, _translate

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
    return _translate(Failure(code, details), "/etcdserverpb.KV/Range", "10.0.0.1:2379")


# The details are etcd 3.5's own.
@pytest.mark.parametrize(
    ("code", "details", "kind"),
    [
        (Code.UNAVAILABLE, "failed to connect to all addresses", EtcdUnavailableError),
        (Code.UNAVAILABLE, "etcdserver: no leader", EtcdUnavailableError),
        (Code.UNAVAILABLE, "etcdserver: request timed out", EtcdUnavailableError),
        (Code.DEADLINE_EXCEEDED, "Deadline Exceeded", EtcdUnavailableError),
        (Code.CANCELLED, "Channel closed!", EtcdUnavailableError),
        (Code.UNAUTHENTICATED, "etcdserver: invalid auth token", _StaleTokenError),
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
        (Code.NOT_FOUND, "etcdserver: requested lease not found", EtcdError),
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
    assert "ETCDCTL_USER" in str(translated(Code.PERMISSION_DENIED, "etcdserver: permission denied"))


def test_without_tls_there_are_no_credentials() -> None:
    assert _credentials(EtcdConfig(("10.0.0.1:2379",))) is None


def test_with_tls_there_are_credentials_even_without_files() -> None:
    assert _credentials(EtcdConfig(("https://10.0.0.1:2379",))) is not None
