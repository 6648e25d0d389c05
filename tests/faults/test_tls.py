"""Rows 13 to 15: certificates that are no good, or replaced, between us and etcd."""

from __future__ import annotations

import contextlib
import datetime as dt
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme
from tests.support.certificates import Folder
from tests.support.load import Load
from tests.support.processes import EchoServer
from tests.support.waiting import wait_until
from tests.support.witnesses import Watcher

import etcd_grpc
from etcd_grpc.telemetry import events
from etcd_grpc.testing import Cluster, Proxies, TlsFiles

YESTERDAY = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ours(tmp_path: Path, authority: trustme.CA) -> Folder:
    """The certificate with which we come to etcd."""
    made = Folder(tmp_path / "ours", authority)
    made.rotate("client")
    return made


@pytest.fixture
def cluster(tmp_path: Path, authority: trustme.CA) -> Iterator[Cluster]:
    """One member that wants a client's certificate."""
    folder = Folder(tmp_path / "etcds", authority)
    folder.rotate("127.0.0.1")
    with Cluster(1, tls=TlsFiles(folder.ca, folder.cert, folder.key, folder.cert, folder.key)) as made:
        yield made


@pytest.fixture
def proxies(cluster: Cluster) -> Iterator[Proxies]:
    with cluster.through_proxies() as made:
        yield made


@pytest.fixture
def config(proxies: Proxies, ours: Folder) -> etcd_grpc.EtcdConfig:
    return etcd_grpc.EtcdConfig(proxies.endpoints, ca_cert=ours.ca, cert=ours.cert, key=ours.key)


def told_of(told: list[etcd_grpc.Event], kind: type[etcd_grpc.Event]) -> list[etcd_grpc.Event]:
    return [event for event in told if isinstance(event, kind)]


@pytest.fixture
def followed(
    config: etcd_grpc.EtcdConfig, service: str
) -> Iterator[tuple[Load, Watcher, etcd_grpc.Registration]]:
    """A service under load, seen and kept through a session with certificates."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(EchoServer())
        registration = stack.enter_context(
            etcd_grpc.register(service, address=server.address, ttl_s=3, etcd=config, settle_s=0)
        )
        load = stack.enter_context(Load(service, config))
        watcher = stack.enter_context(Watcher.of(config, service))
        wait_until(lambda: watcher.resolver.snapshot().connected, "followed")
        yield load, watcher, registration


def test_row_14_our_certificate_is_rotated_and_the_watch_goes_on(
    cluster, proxies, config, ours, followed, service, told, recovers: Callable[..., float]
):
    load, watcher, registration = followed
    ours.rotate("client")
    began = time.monotonic()
    recovers(
        14,
        "our certificate to etcd replaced: until new connections use it",
        lambda: told_of(told, events.CertificateRotated),
        2,
        began,
    )
    # Only a new connection can register now, and the watch has seen no break.
    with etcd_grpc.register(service, port=1, weight=0, etcd=config, settle_s=0):
        wait_until(lambda: "127.0.0.1:1" in watcher.view.values(), "seen by the old watch")
    assert not told_of(told, events.Disconnected)
    # What comes after a break has the new certificate.
    proxies.reset_connections()
    wait_until(lambda: watcher.resolver.snapshot().connected, "followed again")
    wait_until(lambda: registration.registered, "registered")
    load.assert_clean()


def test_row_14_an_expired_certificate_in_memory_is_replaced_by_the_valid_one_on_disk(
    cluster, proxies, ours, service, authority
):
    """What is used after the rotation is what stands on disk: the one before could not connect."""
    end = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=8)
    ours.rotate("client", end=end)
    config = etcd_grpc.EtcdConfig(proxies.endpoints, ca_cert=ours.ca, cert=ours.cert, key=ours.key)
    with Watcher.of(config, service) as watcher:
        wait_until(lambda: watcher.resolver.snapshot().connected, "followed")
        wait_until(lambda: dt.datetime.now(dt.UTC) > end + dt.timedelta(seconds=1), "expired", 30)
        proxies.reset_connections()
        wait_until(lambda: not watcher.resolver.snapshot().connected, "refused")
        ours.rotate("client")
        wait_until(lambda: watcher.resolver.snapshot().connected, "followed again", 15)


@pytest.mark.parametrize(
    ("case", "why"),
    [("mismatch", "does not belong to the certificate"), ("expired", "expired: notAfter is")],
)
def test_row_15_a_pair_that_cannot_be_used_leaves_the_last_good_one(
    case, why, proxies, ours, followed, told, recovers: Callable[..., float]
):
    load, _, registration = followed
    if case == "mismatch":
        ours.mismatch("client")
    else:
        ours.rotate("client", end=YESTERDAY)
    began = time.monotonic()
    recovers(
        15,
        f"our certificate to etcd replaced by one that cannot be used ({case}): until it is told",
        lambda: told_of(told, events.CertificateRejected),
        2,
        began,
    )
    assert why in str(told_of(told, events.CertificateRejected)[0])
    proxies.reset_connections()  # the next connections are made with the last good pair
    wait_until(lambda: told_of(told, events.Reconnected), "followed again")
    ours.rotate("client")
    wait_until(lambda: told_of(told, events.CertificateRotated), "the next good pair is used")
    proxies.reset_connections()
    wait_until(lambda: len(told_of(told, events.Reconnected)) > 1, "followed with it")
    wait_until(lambda: registration.registered, "registered")
    assert len(told_of(told, events.CertificateRejected)) == 1
    assert told_of(told, events.CertificateRejected)[0].count == 1
    load.assert_clean()
