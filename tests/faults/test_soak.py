"""A thousand disconnects leave nothing behind: no thread, no open file, no memory."""

from __future__ import annotations

import contextlib
import gc
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from tests.support.calls import RETRY
from tests.support.processes import EchoServer
from tests.support.report import record
from tests.support.waiting import wait_until

import etcd_grpc
from etcd_grpc import plane
from etcd_grpc.resolver import Resolver, Subscription
from etcd_grpc.testing import Cluster, Proxy

DISCONNECTS = 1000
WARM_UP = 150  # pools, caches and thread-locals fill
MOST_MB = 8.0  # allocators are no accountants; a leak of 10 KB a disconnect would be 10 MB
MOST_OBJECTS = 2000  # two a disconnect would be a leak
POLL_S = 0.001
CALL_TIMEOUT_S = 8.0


@dataclass(frozen=True, slots=True)
class Usage:
    """What this process holds."""

    threads: int
    files: int
    rss_mb: float
    objects: int

    @classmethod
    def now(cls) -> Usage:
        gc.collect()
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        fields = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
        files = sum(1 for _ in Path("/proc/self/fd").iterdir())
        rss_mb = int(fields["VmRSS"][0]) / 1024
        return cls(int(fields["Threads"][0]), files, rss_mb, len(gc.get_objects()))


@contextlib.contextmanager
def following(etcd: str, service: str) -> Iterator[Resolver]:
    """The resolver that the channel to ``service`` shares."""
    control = plane.acquire(etcd_grpc.EtcdConfig.of(etcd))
    session = control.session
    subscription = Subscription(session.loop, lambda changes: None)
    resolver = session.run(lambda s: control.subscribe(service, s), subscription)
    try:
        yield resolver
    finally:
        session.run(lambda s: control.unsubscribe(service, s), subscription)
        control.release()


@dataclass
class Soak:
    """One session with a watch, a registration and a channel, all of it behind two proxies."""

    to_etcd: Proxy
    to_server: Proxy
    resolver: Resolver
    call: grpc.UnaryUnaryMultiCallable[bytes, bytes]

    def disconnect(self) -> float:
        """Reset everything; return the seconds until etcd is followed and the server answers."""
        began = time.monotonic()
        before = self.to_etcd.accepted
        self.to_etcd.reset_connections()
        self.to_server.reset_connections()
        wait_until(
            lambda: self.to_etcd.accepted > before and self.resolver.connected,
            "etcd is followed again",
            poll_s=POLL_S,
        )
        self.call(b"x", timeout=CALL_TIMEOUT_S, wait_for_ready=True)
        return time.monotonic() - began

    def disconnect_often(self, times: int) -> list[float]:
        return [self.disconnect() for _ in range(times)]


@pytest.mark.timeout(600)
def test_a_thousand_disconnects_leave_nothing_behind(service, caplog):
    caplog.set_level(logging.ERROR, "etcd_grpc")  # pytest keeps what is logged: it would count
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(Cluster(1))
        server = stack.enter_context(EchoServer())
        to_etcd = stack.enter_context(Proxy(cluster.endpoints[0]))
        to_server = stack.enter_context(Proxy(server.address))
        etcd = to_etcd.address
        registration = etcd_grpc.register(service, address=to_server.address, etcd=etcd, settle_s=0)
        stack.enter_context(registration)
        target = f"etcd:///{service}"
        channel = etcd_grpc.insecure_channel(target, etcd=etcd, service_config=RETRY)
        stack.enter_context(channel)
        resolver = stack.enter_context(following(etcd, service))
        soak = Soak(to_etcd, to_server, resolver, channel.unary_unary("/echo/UnaryUnary"))
        soak.disconnect_often(WARM_UP)
        before = settled()
        times = sorted(soak.disconnect_often(DISCONNECTS))
        after = settled()
        # It is all still at work: what is changed now arrives.
        registration.update(weight=7)
        wait_until(
            lambda: [e.weight for e in resolver.snapshot().endpoints.values()] == [7], "followed"
        )
    median, most = times[DISCONNECTS // 2], times[-1]
    print(f"\nbefore {before}\nafter  {after}\nback after {median:.3f} s, at most {most:.3f} s")
    record(2, "1,000 disconnects in a row: the slowest", most, 5, "nothing is left behind")
    assert after.threads <= before.threads + 2  # gRPC's own pool breathes
    assert after.files <= before.files
    assert after.objects - before.objects < MOST_OBJECTS
    assert after.rss_mb - before.rss_mb < MOST_MB


def settled() -> Usage:
    """Usage once no thread or file has come or gone for longer than a call's deadline.

    Until it has passed, its timer holds what has waited for a connection.
    """
    last = Usage.now()
    since = time.monotonic()

    def rests() -> bool:
        nonlocal last, since
        now = Usage.now()
        if (now.threads, now.files) != (last.threads, last.files):
            since = time.monotonic()
        last = now
        return time.monotonic() - since > CALL_TIMEOUT_S + 0.5

    wait_until(rests, "no thread or file comes or goes", CALL_TIMEOUT_S + 60, poll_s=0.1)
    return last
