"""One small tree of errors, split by who has to act."""

from __future__ import annotations

import pytest

from etcd_grpc import errors
from etcd_grpc.errors import (
    AuthenticationError,
    ConfigurationError,
    EtcdError,
    EtcdGrpcError,
    EtcdUnavailableError,
    MissingExtraError,
    StoredDataError,
)


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_is_caught_by_the_base(name: str) -> None:
    assert issubclass(getattr(errors, name), EtcdGrpcError)


@pytest.mark.parametrize(
    ("error", "builtin"), [(ConfigurationError, ValueError), (MissingExtraError, ImportError)]
)
def test_error_is_also_what_python_programs_expect(
    error: type[Exception], builtin: type[Exception]
) -> None:
    assert issubclass(error, builtin)


@pytest.mark.parametrize("error", [AuthenticationError, EtcdUnavailableError])
def test_what_etcd_did_is_an_etcd_error(error: type[Exception]) -> None:
    assert issubclass(error, EtcdError)


@pytest.mark.parametrize("error", [ConfigurationError, StoredDataError, MissingExtraError])
def test_what_etcd_did_not_do_is_no_etcd_error(error: type[Exception]) -> None:
    assert not issubclass(error, EtcdError)


def test_stored_data_is_not_the_callers_configuration() -> None:
    assert not issubclass(StoredDataError, ConfigurationError)
