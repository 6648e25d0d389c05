"""Rows 10 to 12: tokens end, passwords change, permissions are taken away."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.load import Load
from tests.support.processes import EchoServer
from tests.support.report import record
from tests.support.waiting import wait_until
from tests.support.witnesses import Watcher

import etcd_grpc
from etcd_grpc.telemetry import events
from etcd_grpc.testing import Cluster, Proxies, User

PASSWORD, OTHER = "correct-horse", "battery-staple"
PREFIX = "test."


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """One member with a user ``app``, who may use what begins with ``test.``."""
    with Cluster(1) as made:
        made.admin.enable_auth(User("app", PASSWORD, PREFIX), User("writer", PASSWORD, PREFIX))
        yield made


@pytest.fixture
def proxies(cluster) -> Iterator[Proxies]:
    with cluster.through_proxies() as made:
        yield made


@pytest.fixture
def config(proxies, tmp_path) -> etcd_grpc.EtcdConfig:
    secret = tmp_path / "secret"
    secret.write_text(PASSWORD + "\n")
    return etcd_grpc.EtcdConfig(proxies.endpoints, user="app", password_file=secret)


@pytest.fixture
def outside(cluster) -> etcd_grpc.EtcdConfig:
    """Another user's way to etcd, that nobody disturbs."""
    return etcd_grpc.EtcdConfig(cluster.endpoints, user="writer", password=PASSWORD)


def authentications(cluster: Cluster) -> float:
    return sum(
        count
        for name, count in cluster.metrics(0).items()
        if name.startswith("grpc_server_started_total") and '"Authenticate"' in name
    )


def view_of(watcher: Watcher) -> set[str]:
    return set(watcher.view.values())


def says(watcher: Watcher, *parts: str) -> bool:
    """Whether all of these are in one status: the next attempt may fail in another way."""
    status = watcher.resolver.status()
    return all(part in status for part in parts)


def test_row_10_token_ends_during_a_long_watch(
    cluster, proxies, config, outside, service, told, caplog
):
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(EchoServer())
        stack.enter_context(
            etcd_grpc.register(service, address=server.address, ttl_s=3, etcd=config, settle_s=0)
        )
        load = stack.enter_context(Load(service, config))
        watcher = stack.enter_context(Watcher.of(config, service))
        wait_until(lambda: watcher.resolver.snapshot().connected, "followed")
        for round_ in range(3):
            before = authentications(cluster)
            cluster.admin.expire_tokens("app")
            proxies.reset_connections()  # the next watch comes with a forgotten token
            began = time.monotonic()
            late = etcd_grpc.register(service, port=round_ + 1, weight=0, etcd=outside, settle_s=0)
            wait_until(lambda: f"127.0.0.1:{round_ + 1}" in view_of(watcher), "seen")  # noqa: B023
            late.close()
            wait_until(lambda: f"127.0.0.1:{round_ + 1}" not in view_of(watcher), "seen to go")  # noqa: B023
            record(
                10,
                "token forgotten and stream broken: until events come again",
                time.monotonic() - began,
                5,
                "no event lost",
            )
            # One more a second where attempts are slow: those that get no answer in time are repeated.
            asked = authentications(cluster) - before
            assert asked <= 4 + time.monotonic() - began, "no busy loop"
        load.assert_clean()
    assert not [event for event in told if isinstance(event, events.Relisted)], "resumed, not listed"
    lines = [line for line in caplog.records if line.levelno >= logging.WARNING]
    assert len(lines) <= 3 * 4
    assert PASSWORD not in caplog.text


def test_row_11_password_changed(cluster, proxies, config, outside, service, recovers, caplog):
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(EchoServer())
        mine = stack.enter_context(
            etcd_grpc.register(service, address=server.address, ttl_s=30, etcd=config, settle_s=0)
        )
        load = stack.enter_context(Load(service, config))
        watcher = stack.enter_context(Watcher.of(config, service))
        wait_until(lambda: watcher.resolver.snapshot().connected, "followed")
        cluster.admin.change_password("app", OTHER)
        proxies.reset_connections()
        wait_until(lambda: not watcher.resolver.snapshot().connected, "refused")
        time.sleep(2)  # let the attempts settle
        began, before = time.monotonic(), authentications(cluster)
        time.sleep(6)  # the point: how often is etcd asked
        assert authentications(cluster) - before <= time.monotonic() - began + 1
        assert view_of(watcher) == {server.address}  # served as it was
        wait_until(lambda: says(watcher, "'app'") or says(watcher, "ETCDCTL_PASSWORD"), "named")

        Path(config.password_file).write_text(OTHER)
        recovers(
            11,
            "password changed: from the new secret until the view is fresh",
            lambda: watcher.resolver.snapshot().connected,
            2,
            time.monotonic(),
        )
        with etcd_grpc.register(service, port=1, weight=0, etcd=outside, settle_s=0):
            wait_until(lambda: "127.0.0.1:1" in view_of(watcher), "seen")
        wait_until(lambda: mine.registered, "still registered")
        load.assert_clean()
    assert PASSWORD not in caplog.text
    assert OTHER not in caplog.text


def test_row_12_permission_revoked(cluster, proxies, config, service, recovers, caplog):
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(EchoServer())
        mine = stack.enter_context(
            etcd_grpc.register(service, address=server.address, ttl_s=30, etcd=config, settle_s=0)
        )
        load = stack.enter_context(Load(service, config))
        watcher = stack.enter_context(Watcher.of(config, service))
        wait_until(lambda: watcher.resolver.snapshot().connected, "followed")
        cluster.admin.revoke_permission("app", PREFIX)
        proxies.reset_connections()
        wait_until(lambda: says(watcher, "read permission", f"{service}/", "'app'"), "named")
        assert view_of(watcher) == {server.address}
        with pytest.raises(etcd_grpc.AuthenticationError) as caught:
            etcd_grpc.register(service, port=1, etcd=config, timeout_s=20)
        for part in ("'app'", "readwrite permission", f"{service}/127.0.0.1:1"):
            assert part in str(caught.value)
        with pytest.raises(etcd_grpc.AuthenticationError, match="readwrite permission"):
            mine.update(weight=2)
        cluster.admin.grant_permission("app", PREFIX)
        began = time.monotonic()
        recovers(
            12,
            "permission revoked: from its return until the view is fresh",
            lambda: watcher.resolver.snapshot().connected,
            3,
            began,
        )
        recovers(
            12,
            "permission revoked: from its return until the change stands",
            lambda: mine.registered,
            3,
            began,
        )
        load.assert_clean()
    assert PASSWORD not in caplog.text


def test_the_least_roles(cluster, service):
    """The permissions that docs/security.md names are enough, and less is not."""
    cluster.admin.add_user(User("server", PASSWORD, f"{service}/", "readwrite"))
    cluster.admin.add_user(User("client", PASSWORD, f"{service}/", "read"))
    server, client = (
        etcd_grpc.EtcdConfig(cluster.endpoints, user=name, password=PASSWORD)
        for name in ("server", "client")
    )
    with contextlib.ExitStack() as stack:
        echo = stack.enter_context(EchoServer())
        registration = stack.enter_context(
            etcd_grpc.register(service, address=echo.address, id="a", ttl_s=6, etcd=server, settle_s=0)
        )
        channel = stack.enter_context(etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=client))
        call = channel.unary_unary("/echo/UnaryUnary")
        assert call(b"x", timeout=10)
        registration.update(weight=2, metadata={"k": json.dumps(1)})
        cluster.admin.expire_tokens("server")
        time.sleep(8)  # longer than the lease without a beat
        assert registration.registered
        assert call(b"x", timeout=10)
        with pytest.raises(etcd_grpc.DuplicateInstanceError):
            etcd_grpc.register(
                service,
                port=2,
                id="a",
                ttl_s=3,
                etcd=etcd_grpc.EtcdConfig(cluster.endpoints * 2, user="server", password=PASSWORD),
            )
        with pytest.raises(etcd_grpc.AuthenticationError, match="'client' needs a role with readwrite"):
            etcd_grpc.register(service, port=1, etcd=client, timeout_s=20)
        with pytest.raises(etcd_grpc.AuthenticationError, match="'server' needs a role"):
            etcd_grpc.register("another.Service", port=1, etcd=server, timeout_s=20)
