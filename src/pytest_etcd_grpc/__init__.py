"""The pytest plugin of etcd-grpc: the fixtures ``etcd`` and ``etcd_cluster``, on real etcd processes.

pytest imports this module at the start of every run in an environment where etcd-grpc is installed,
also where nobody uses it.  Hence it stands outside of the package, whose import brings gRPC, and
loads it only when a fixture is asked for.  A project's own fixtures of these names come first.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from etcd_grpc.testing import Cluster

__all__ = ["etcd", "etcd_cluster"]


@pytest.fixture(scope="session")
def etcd() -> Iterator[str]:
    """``host:port`` of an etcd that all tests share, and that none of them breaks."""
    with _running(1) as cluster:
        yield cluster.endpoints[0]


@pytest.fixture
def etcd_cluster() -> Iterator[Cluster]:
    """Three members for one test, which may break them; see :class:`etcd_grpc.testing.Cluster`."""
    with _running(3) as cluster:
        yield cluster


@contextlib.contextmanager
def _running(members: int) -> Iterator[Cluster]:
    """A cluster, or a failure of the test that says what to install."""
    from etcd_grpc.errors import ConfigurationError  # noqa: PLC0415 - see above
    from etcd_grpc.testing import Cluster  # noqa: PLC0415

    cluster = Cluster(members, partitionable=members > 1)
    try:
        cluster.start()
    except ConfigurationError as error:
        pytest.fail(f"etcd-grpc cannot start an etcd: {error}", pytrace=False)
    try:
        yield cluster
    finally:
        cluster.stop()
