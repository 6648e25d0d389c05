"""Following a service through what happens to etcd, against real clusters."""

from __future__ import annotations

import json
import shutil
import threading
import time

import pytest
from tests.support.etcd import RawEtcd
from tests.support.waiting import wait_until

import etcd_grpc
from etcd_grpc import plane
from etcd_grpc.devcluster import Cluster
from etcd_grpc.model import Put, Remove
from etcd_grpc.resolver import Subscription


class Follower:
    """A subscriber that keeps its own view from the changes alone, and every revision it saw."""

    def __init__(self, endpoints: tuple[str, ...], service: str) -> None:
        self._control = plane.acquire(etcd_grpc.EtcdConfig.of(endpoints))
        self._service = service
        self._subscription = Subscription(self._control.session.loop, self._changed)
        self.view: dict[str, str] = {}
        self.sizes: list[int] = []
        self.resolver = self._control.session.run(
            lambda s: self._control.subscribe(service, s), self._subscription
        )

    def _changed(self, changes) -> None:
        for change in changes:
            match change:
                case Put(endpoint):
                    self.view[endpoint.key] = endpoint.address
                case Remove(key):
                    del self.view[key]
        self.sizes.append(len(self.view))

    @property
    def member(self) -> str:
        return self._control.session.transport.member

    def close(self) -> None:
        self._control.session.run(
            lambda s: self._control.unsubscribe(self._service, s), self._subscription
        )
        self._control.release()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


def value(address: str) -> str:
    return json.dumps({"Op": 0, "Addr": address, "Metadata": None})


def put_many(raw: RawEtcd, service: str, numbers: range) -> None:
    for number in numbers:
        raw.put(f"{service}/{number:05}", value(f"10.0.0.1:{number + 1}"))


def test_a_service_of_many_pages_is_listed_completely(etcd, service, raw):
    put_many(raw, service, range(4500))
    with Follower((etcd,), service) as follower:
        wait_until(lambda: len(follower.view) == 4500, "all listed", 30)
        assert follower.resolver.snapshot().connected
        raw.delete(f"{service}/00007")
        wait_until(lambda: len(follower.view) == 4499, "followed")


def test_a_service_whose_name_begins_another_is_not_mixed_up(etcd, service, raw):
    raw.put(f"{service}/a", value("10.0.0.1:1"))
    raw.put(f"{service}-b/a", value("10.0.0.1:2"))
    raw.put(f"{service}", value("10.0.0.1:3"))
    with Follower((etcd,), service) as follower:
        wait_until(lambda: follower.view, "listed")
        assert follower.view == {f"{service}/a": "10.0.0.1:1"}


def test_many_followers_of_a_process_share_one_stream(etcd, service, raw):
    before = set(threading.enumerate())
    followers = [Follower((etcd,), f"{service}.{n}") for n in range(10)]
    try:
        for number in range(10):
            raw.put(f"{service}.{number}/x", value("10.0.0.1:1"))
        wait_until(lambda: all(f.view for f in followers), "all followed")
        began = [t.name for t in threading.enumerate() if t not in before]
        ours = sorted(name for name in began if name.startswith("etcd-grpc"))
        assert ours == ["etcd-grpc-control", "etcd-grpc-watch"]
    finally:
        for follower in followers:
            follower.close()


def _write_while(raw: RawEtcd, service: str, fault, count: int = 400) -> dict[str, str]:
    """Write at about 100 changes a second, with ``fault`` in the middle; return what should stand."""
    expected: dict[str, str] = {}
    for number in range(count):
        if number == count // 3:
            fault()
        key = f"{service}/{number % 50:03}"
        if number % 7 == 3 and key in expected:
            raw.delete(key)
            del expected[key]
        else:
            address = f"10.0.0.1:{number + 1}"
            raw.put(key, value(address))
            expected[key] = address
        time.sleep(0.01)
    return expected


@pytest.mark.parametrize("fault", ["kill", "pause"])
def test_no_change_is_missed_when_the_watched_member_fails(cluster: Cluster, service, fault):
    with Follower(cluster.endpoints, service) as follower:
        wait_until(lambda: follower.resolver.resolved, "listed")
        watched = cluster.endpoints.index(follower.member)
        other = cluster.endpoints[(watched + 1) % 3]
        with RawEtcd(other) as raw:
            expected = _write_while(raw, service, lambda: getattr(cluster, fault)(watched))
            wait_until(lambda: follower.view == expected, "the view is etcd's", 30)
        assert follower.sizes[1:].count(0) == 0  # never an empty view in between
        if fault == "pause":
            cluster.resume(watched)


def test_no_change_is_missed_when_the_leader_is_killed(cluster: Cluster, service):
    leader = cluster.leader()
    others = [cluster.endpoints[i] for i in range(3) if i != leader]
    with Follower(tuple(others), service) as follower, RawEtcd(others[0]) as raw:
        wait_until(lambda: follower.resolver.resolved, "listed")
        raw.put(f"{service}/a", value("10.0.0.1:1"))
        cluster.kill(leader)
        cluster.leader()
        raw.put(f"{service}/b", value("10.0.0.1:2"))
        raw.delete(f"{service}/a")
        wait_until(lambda: list(follower.view) == [f"{service}/b"], "followed", 30)


def test_a_compaction_while_the_watch_is_down_leads_to_a_list_and_a_difference(service):
    with Cluster(1) as cluster, RawEtcd(cluster.endpoints[0]) as raw:
        put_many(raw, service, range(20))
        with Follower(cluster.endpoints, service) as follower:
            wait_until(lambda: len(follower.view) == 20, "listed")
            cluster.kill(0)
            cluster.restart(0)
            cluster.wait_healthy()
            raw.delete(f"{service}/00003")
            put_many(raw, service, range(20, 25))
            raw.compact()
            wait_until(lambda: len(follower.view) == 24, "the view is etcd's", 30)
            assert 0 not in follower.sizes[1:]


def test_without_etcd_the_last_view_is_kept_and_marked(service):
    with Cluster(1) as cluster, RawEtcd(cluster.endpoints[0]) as raw:
        put_many(raw, service, range(3))
        with Follower(cluster.endpoints, service) as follower:
            wait_until(lambda: follower.resolver.snapshot().connected, "connected")
            cluster.kill(0)
            wait_until(lambda: not follower.resolver.snapshot().connected, "marked")
            assert len(follower.resolver.snapshot().endpoints) == 3
            assert cluster.endpoints[0] in follower.resolver.status()
            cluster.restart(0)
            cluster.wait_healthy()
            wait_until(lambda: follower.resolver.snapshot().connected, "connected again", 30)


def test_an_etcd_that_was_emptied_is_listed_again(service, tmp_path):
    """The same address, another cluster: a lower revision and another cluster id."""
    with Cluster(1, data_dir=tmp_path / "data") as cluster:
        endpoints = cluster.endpoints
        with RawEtcd(endpoints[0]) as raw, Follower(endpoints, service) as follower:
            put_many(raw, service, range(30))
            wait_until(lambda: len(follower.view) == 30, "listed")
            cluster.stop()
            for member in (tmp_path / "data").glob("*/member"):
                shutil.rmtree(member)
            cluster.start()
            assert cluster.endpoints == endpoints
            raw.put(f"{service}/new", value("10.0.0.9:1"))
            wait_until(lambda: f"{service}/new" in follower.view, "the view is etcd's", 30)
            # So many at once: rather a mistake in etcd than thirty servers that died.
            assert len(follower.resolver.snapshot().held) == 30
            assert len(follower.view) == 31
