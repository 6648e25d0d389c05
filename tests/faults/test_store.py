"""Rows 7 to 9 and 39: what etcd holds is compacted, replaced, full, or lost at one blow."""

from __future__ import annotations

import contextlib
import json
import shutil
import time

import pytest
from tests.support.etcd import RawEtcd
from tests.support.load import Load
from tests.support.processes import EchoServer
from tests.support.report import record
from tests.support.waiting import wait_until
from tests.support.witnesses import Watcher

import etcd_grpc
from etcd_grpc.etcd import methods
from etcd_grpc.etcd import rpc_pb2 as rpc
from etcd_grpc.telemetry import events
from etcd_grpc.testing import Cluster

MANY = 10_000


def value(address: str) -> bytes:
    return json.dumps({"Op": 0, "Addr": address, "Metadata": {"status": "draining"}}).encode()


def put_many(raw: RawEtcd, service: str, count: int) -> None:
    """As fast as etcd takes them: a hundred in a transaction."""
    for start in range(0, count, 100):
        puts = [
            rpc.RequestOp(
                request_put=rpc.PutRequest(
                    key=f"{service}/{n:05}".encode(), value=value(f"10.0.{n // 250}.{n % 250}:1")
                )
            )
            for n in range(start, start + 100)
        ]
        raw.call(methods.TXN, rpc.TxnRequest(success=puts))


def connected(load: Load, server: EchoServer) -> bool:
    rows = load.channel.explain().endpoints
    return any(row.state == "READY" for row in rows if row.address == server.address)


def of(told, kind) -> list:
    return [event for event in told if isinstance(event, kind)]


def test_row_7_compaction_while_the_watch_is_down(service, told):
    with Cluster(1) as cluster, contextlib.ExitStack() as stack:
        raw = stack.enter_context(RawEtcd(cluster.endpoints[0]))
        put_many(raw, service, MANY)
        proxies = stack.enter_context(cluster.through_proxies())
        watcher = stack.enter_context(Watcher(proxies.endpoints, service))
        wait_until(lambda: len(watcher.view) == MANY, "listed", 30)
        proxies.cut()
        wait_until(lambda: not watcher.resolver.snapshot().connected, "cut off")
        for number in range(10):
            raw.delete(f"{service}/{number:05}")
            raw.put(f"{service}/new-{number}", value(f"10.1.0.{number}:1"))
        cluster.admin.compact()
        changed_before = len(watcher.sizes)
        proxies.mend()
        wait_until(
            lambda: f"{service}/new-9" in watcher.view and len(watcher.view) == MANY, "followed", 30
        )
        # Relisted as the bare watch tells: from etcd's "compacted" until the list was handed on.
        took_s = watcher.bare.listed_at - watcher.bare.broke_at
        wait_until(lambda: of(told, events.Relisted), "told")
        assert min(watcher.sizes[1:]) >= MANY - 10, "never an empty view in between"
        assert len(watcher.sizes) - changed_before <= 4, "one change, the difference"
    (compacted, *_), (relisted,) = of(told, events.Compacted), of(told, events.Relisted)
    assert compacted.revision > 0
    assert relisted.changes == 20
    print(f"row 7: {took_s:.2f} s")


@pytest.mark.parametrize("how", ["emptied", "restored from a backup"])
def test_row_8_store_replaced(service, tmp_path, recovers, told, how):
    """The same address: another cluster id, or the same and a lower revision."""
    data, backup = tmp_path / "data", tmp_path / "backup"
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(Cluster(1, data_dir=data))
        raw = stack.enter_context(RawEtcd(cluster.endpoints[0]))
        watcher = stack.enter_context(Watcher(cluster.endpoints, service))
        for number in range(5):
            raw.put(f"{service}/{number}", value(f"10.0.0.{number}:1"))
        if how != "emptied":
            cluster.stop()
            shutil.copytree(data, backup)
            cluster.start()
        for number in range(5, 40):
            raw.put(f"{service}/{number}", value(f"10.0.0.{number}:1"))
        wait_until(lambda: len(watcher.view) == 40, "all seen", 30)
        cluster.stop()
        if how == "emptied":
            for member in data.glob("*/member"):
                shutil.rmtree(member)
        else:
            shutil.rmtree(data)
            backup.rename(data)
        cluster.start()
        began = time.monotonic()
        raw.put(f"{service}/new", value("10.9.9.9:1"))
        recovers(
            8,
            f"etcd {how}: until the first new event is seen",
            lambda: f"{service}/new" in watcher.view,
            5,
            began,
        )
        snapshot = watcher.resolver.snapshot()
        # All were draining, that is withdrawn, so nobody is held; the next test holds.
        assert not snapshot.held
        left = (
            {f"{service}/new"}
            if how == "emptied"
            else {f"{service}/{n}" for n in (0, 1, 2, 3, 4, "new")}
        )
        wait_until(lambda: set(watcher.view) == left, "what is no longer there has left the view")
        wait_until(lambda: of(told, events.StoreReplaced), "told")


def test_row_9_nospace_alarm(service):
    with Cluster(1) as cluster, contextlib.ExitStack() as stack:
        etcd = cluster.endpoints
        servers = [stack.enter_context(EchoServer()) for _ in range(2)]
        stack.enter_context(
            etcd_grpc.register(service, address=servers[0].address, ttl_s=5, etcd=etcd, settle_s=0)
        )
        load = stack.enter_context(Load(service, etcd))
        raw = stack.enter_context(RawEtcd(etcd[0]))
        cluster.admin.alarm("NOSPACE")
        with pytest.raises(etcd_grpc.EtcdError, match=r"NOSPACE alarm.*disarm") as caught:
            etcd_grpc.register(service, address=servers[1].address, etcd=etcd, timeout_s=5)
        assert service in str(caught.value)
        time.sleep(6)  # the point: with the attempt above twice the TTL, so the lease has been kept
        assert len(raw.get(f"{service}/")) == 1
        cluster.admin.disarm()
        with etcd_grpc.register(service, address=servers[1].address, etcd=etcd, settle_s=0):
            wait_until(lambda: len(load.answers) == 2, "the second is called")
        load.assert_clean()


def test_row_39_most_instances_vanish_at_once(service, recovers, told):
    """As by a slip of the hand: the servers are well, their entries are gone."""
    with Cluster(1) as cluster, contextlib.ExitStack() as stack:
        etcd = cluster.endpoints
        raw = stack.enter_context(RawEtcd(etcd[0]))
        servers = [stack.enter_context(EchoServer()) for _ in range(4)]
        for server in servers:
            raw.put(f"{service}/{server.address}", json.dumps({"Op": 0, "Addr": server.address}))
        load = stack.enter_context(Load(service, etcd))
        watcher = stack.enter_context(Watcher(etcd, service))
        wait_until(lambda: len(load.answers) == 4, "all are called")
        load.forget()
        began = time.monotonic()
        cluster.admin.delete_prefix(f"{service}/")
        recovers(
            39,
            "all entries deleted: until they are held",
            lambda: len(watcher.resolver.snapshot().held) == 4,
            1,
            began,
        )
        wait_until(
            lambda: min(load.answers[server.address] for server in servers) > 50,
            "all are still called",
            30,
        )
        servers[0].kill()  # held, but not connected: not called any more
        wait_until(lambda: not connected(load, servers[0]), "it is noticed")
        load.forget()
        wait_until(lambda: load.answers.total() > 50, "what was in flight on it has failed")
        assert len(load.failures) <= 4  # in flight on it, or just about to be (two threads)
        load.failures.clear()
        load.forget()
        wait_until(lambda: load.answers.total() > 100, "the others are called")
        load.assert_clean()
        assert set(load.answers) == {server.address for server in servers[1:]}
        # Those who leave in order go at once, also now.
        raw.put(f"{service}/x", value("127.0.0.1:1"))
        wait_until(lambda: f"{service}/x" in watcher.view, "seen")
        raw.delete(f"{service}/x")
        recovers(
            39,
            "a withdrawn one leaves meanwhile",
            lambda: f"{service}/x" not in watcher.view,
            1,
            time.monotonic(),
        )
    (started,) = of(told, events.HoldStarted)
    assert (started.left, started.hold_s) == (0, pytest.approx(60, abs=1))
    record(39, "how long they are held", started.hold_s, 60)
