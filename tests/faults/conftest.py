"""What the fault tests share with the integration tests; each breaks an etcd of its own."""

from __future__ import annotations

import contextlib
import socket
import sys
import time
from collections.abc import Callable, Iterator

import pytest
from tests.integration.conftest import _no_thread_left, service
from tests.support.report import record
from tests.support.waiting import wait_until

import etcd_grpc
from etcd_grpc.devcluster.ports import LOOPBACK, reserve_free

__all__ = ["_no_thread_left", "service"]

# A machine of a CI system may be many times slower than the bound that holds in production.
SLACK = 3.0
_STANDSTILL_S = 5.0


def allowed(bound_s: float) -> float:
    """What a test lets a bound be: the machine may be slow, and stand still once in a while."""
    return bound_s * SLACK + _STANDSTILL_S


@pytest.fixture
def told() -> Iterator[list[etcd_grpc.Event]]:
    """Every event of the test, in order."""
    seen: list[etcd_grpc.Event] = []
    with etcd_grpc.listen(seen.append):
        yield seen


@pytest.fixture
def port() -> Iterator[int]:
    """A port that nobody else gets while the test lasts, and neither the next one.

    Both are bound and not listened at, beside which a server of ours may listen again and again.
    """
    while True:
        with contextlib.ExitStack() as held:
            first = reserve_free(1)
            held.callback(first.release)
            following = held.enter_context(socket.socket())
            try:
                following.bind((LOOPBACK, first.ports[0] + 1))
            except OSError:
                continue
            following.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if sys.platform != "linux":
                following.close()  # as ``reserve_free`` does: it would keep our server out as well
            yield first.ports[0]
            return


@pytest.fixture
def recovers() -> Callable[..., float]:
    """Wait for a recovery, hold it to what its bound allows, and note how long it took."""

    def wait(
        row: int, fault: str, condition: Callable[[], object], bound_s: float, since: float
    ) -> float:
        left = since + allowed(bound_s) - time.monotonic()
        wait_until(condition, f"row {row}, {fault}", max(0.1, left))
        took_s = time.monotonic() - since
        record(row, fault, took_s, bound_s)
        print(f"row {row}, {fault}: {took_s:.2f} s, at most {bound_s:g}")
        return took_s

    return wait
