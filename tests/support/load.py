"""A steady load on a service during a fault: what failed, and that there was a load at all."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import grpc
from tests.support.calls import who

import etcd_grpc
from etcd_grpc.tls import ChannelTls

__all__ = ["Load"]

STANDSTILL_S = 5.0  # of a machine that others share: nobody calls then, and that is no fault


class Load:
    """Calls ``service`` over one channel from some threads, at ``rate`` calls a second in all.

    Args:
        service: The service.
        etcd: etcd's endpoints.
        rate: Calls a second.
        threads: How many threads share it.
        timeout_s: Of each call.
        service_config: A retry policy, for example.
        credentials: For TLS.
    """

    def __init__(
        self,
        service: str,
        etcd: Sequence[str],
        *,
        rate: float = 100.0,
        threads: int = 2,
        timeout_s: float = 5.0,
        service_config: Any = None,
        credentials: grpc.ChannelCredentials | ChannelTls | None = None,
    ) -> None:
        target, how = f"etcd:///{service}", {"etcd": etcd, "service_config": service_config}
        self.channel = (
            etcd_grpc.insecure_channel(target, **how)
            if credentials is None
            else etcd_grpc.secure_channel(target, credentials, **how)
        )
        self._call = self.channel.unary_unary("/echo/UnaryUnary")
        self._rate = rate / threads
        self._timeout_s = timeout_s
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, name=f"load-{n}") for n in range(threads)]
        self.answers: Counter[str] = Counter()  # by the address of the server
        self.last_answer: dict[str, float] = {}  # by address, on time.monotonic's clock
        self.failures: list[str] = []
        self._began = 0.0

    def forget(self) -> None:
        """Count from here on."""
        self.answers.clear()
        self._began = time.monotonic()

    def assert_clean(self) -> None:
        """No call has failed, and there were enough of them for that to mean something.

        Raises:
            AssertionError: One failed, or fewer than half of the calls that were due were made; fewer
                than a tenth, where a standstill of the machine may explain it.
        """
        assert not self.failures, f"{len(self.failures)} failed: {self.failures[:3]}"
        due = self._rate * len(self._threads) * (time.monotonic() - self._began)
        made = self.answers.total()
        excused = self._rate * len(self._threads) * STANDSTILL_S
        least = max(due / 10, (due - excused) / 2)
        assert made >= least, f"the run is void: {made} calls of {due:.0f}"

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stop.is_set():
            try:
                server = who(self._call(b"x", timeout=self._timeout_s))
            except grpc.RpcError as error:
                self.failures.append(f"{error.code()}: {error.details()}")
            else:
                self.answers[server] += 1
                self.last_answer[server] = time.monotonic()
            due = max(due + 1 / self._rate, time.monotonic() - 0.5)
            self._stop.wait(max(0.0, due - time.monotonic()))

    def __enter__(self) -> Self:
        self._call(b"x", timeout=10, wait_for_ready=True)
        self._began = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self.channel.close()
