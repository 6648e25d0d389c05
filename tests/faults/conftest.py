"""What the fault tests share with the integration tests; each breaks an etcd of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from tests.integration.conftest import _no_thread_left, service
from tests.support.report import record
from tests.support.waiting import wait_until

import etcd_grpc

__all__ = ["_no_thread_left", "service"]

# A machine of a CI system may be many times slower than the bound that holds in production.
SLACK = 3.0


@pytest.fixture
def told() -> Iterator[list[etcd_grpc.Event]]:
    """Every event of the test, in order."""
    seen: list[etcd_grpc.Event] = []
    with etcd_grpc.listen(seen.append):
        yield seen


@pytest.fixture
def recovers() -> Callable[..., float]:
    """Wait for a recovery, hold it to its bound (times a slack) and note how long it took."""

    def wait(
        row: int, fault: str, condition: Callable[[], object], bound_s: float, since: float
    ) -> float:
        left = since + bound_s * SLACK - time.monotonic()
        wait_until(condition, f"row {row}, {fault}", max(0.1, left))
        took_s = time.monotonic() - since
        record(row, fault, took_s, bound_s)
        print(f"row {row}, {fault}: {took_s:.2f} s, at most {bound_s:g}")
        return took_s

    return wait
