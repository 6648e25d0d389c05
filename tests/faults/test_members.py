"""Rows 1 to 6: members of etcd die, stop or are cut off; calls go on, servers stay registered."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator

import pytest
from tests.support.etcd import RawEtcd
from tests.support.load import Load
from tests.support.processes import EchoServer
from tests.support.waiting import wait_until
from tests.support.witnesses import Watcher

import etcd_grpc
from etcd_grpc import plane
from etcd_grpc.telemetry import events
from etcd_grpc.testing import Cluster

TTL_S = 3
SERVERS = 3


class Scene:
    """A cluster, servers registered in it, a load on them, and a watcher of what is registered."""

    def __init__(self, stack: contextlib.ExitStack, cluster: Cluster, service: str) -> None:
        self.cluster = cluster
        self.service = service
        etcd = ",".join(cluster.endpoints)
        self.servers = [
            stack.enter_context(EchoServer(register=service, etcd=etcd, ttl_s=TTL_S))
            for _ in range(SERVERS)
        ]
        self.watcher = stack.enter_context(Watcher(cluster.endpoints, service))
        wait_until(lambda: len(self.watcher.view) == SERVERS, "all registered")
        self.load = stack.enter_context(Load(service, cluster.endpoints))
        wait_until(lambda: len(self.load.answers) == SERVERS, "all are called")

    def followed_member(self) -> int:
        """The index of the member that our watch is on."""
        return self.cluster.endpoints.index(self.watcher.member)

    def other_than(self, *indices: int) -> RawEtcd:
        """A client of a member that nobody touches."""
        index = next(i for i in range(len(self.cluster.endpoints)) if i not in indices)
        return RawEtcd(self.cluster.endpoints[index])

    def put_marker(self, raw: RawEtcd, name: str) -> str:
        """An entry that takes no calls; returns its key."""
        key = f"{self.service}/{name}"
        metadata = {"status": "draining"}
        raw.put(key, json.dumps({"Op": 0, "Addr": "127.0.0.1:1", "Metadata": metadata}))
        return key

    def assert_unharmed(self) -> None:
        """Not one call failed, every server took part, all are registered, the view was never empty."""
        self.load.assert_clean()
        assert set(self.load.answers) == {server.address for server in self.servers}
        everyone = {server.address for server in self.servers}
        # An old leader that goes on after a stop may revoke leases (etcd#15247): they are made anew.
        wait_until(lambda: everyone <= set(self.watcher.view.values()), "all are registered")
        assert min(self.watcher.sizes) >= 1
        revisions = [seen.revision for seen in self.watcher.bare.seen]
        assert revisions == sorted(revisions)


@pytest.fixture
def cluster(request) -> Iterator[Cluster]:
    with Cluster(3, **getattr(request, "param", {})) as made:
        yield made


@pytest.fixture
def scene(cluster, service) -> Iterator[Scene]:
    with contextlib.ExitStack() as stack:
        yield Scene(stack, cluster, service)


def test_row_1_leader_killed(scene, recovers):
    leader = scene.cluster.leader()
    with scene.other_than(leader) as raw:
        began = time.monotonic()
        scene.cluster.kill(leader)
        key = scene.put_marker(raw, "after")
        took_s = time.monotonic() - began
        recovers(
            1,
            "leader killed: until writes go on and are seen",
            lambda: key in scene.watcher.view,
            5,
            began,
        )
        assert took_s < 15
    time.sleep(2 * TTL_S)  # the point: longer than any lease without its beats
    scene.assert_unharmed()


def test_row_2_member_that_we_are_connected_to_killed(scene, recovers):
    member = scene.followed_member()
    if scene.cluster.leader() == member:  # a follower is what this row is about
        scene.cluster.pause(member)
        wait_until(lambda: scene.followed_member() != member, "moved", 30)
        scene.cluster.resume(member)
        scene.cluster.wait_healthy()
        member = scene.followed_member()
    before = scene.watcher.bare.followed_at
    with scene.other_than(member) as raw:
        began = time.monotonic()
        scene.cluster.kill(member)
        recovers(
            2,
            "follower killed: until its watch is on another member",
            lambda: scene.watcher.bare.followed_at > before,
            1,
            began,
        )
        key = scene.put_marker(raw, "after")
        wait_until(lambda: key in scene.watcher.view, "the event is seen")
    time.sleep(2 * TTL_S)  # the point: longer than any lease without its beats
    scene.assert_unharmed()


def test_row_3_no_majority_for_five_ttls(scene, recovers):
    stopped = [0, 1]
    for index in stopped:
        scene.cluster.pause(index)
    time.sleep(5 * TTL_S)  # the fault itself
    late = etcd_grpc.register(
        scene.service,
        port=1,
        weight=0,
        etcd=scene.cluster.endpoints,
        required=False,
        timeout_s=0.5,
        settle_s=0,
    )
    assert not scene.watcher.resolver.snapshot().connected
    assert scene.watcher.resolver.snapshot().stale_s > 0
    scene.load.assert_clean()
    for index in stopped:
        scene.cluster.resume(index)
    with RawEtcd(scene.cluster.endpoints[2]) as raw:
        scene.put_marker(raw, "quorum")
        began = time.monotonic()
        everyone = {server.address for server in scene.servers} | {"127.0.0.1:1"}
        recovers(
            3,
            "no majority for 5 TTLs: from the quorum until all are registered and the view is fresh",
            lambda: (
                everyone <= set(scene.watcher.view.values())
                and late.registered
                and scene.watcher.resolver.snapshot().connected
            ),
            5,
            began,
        )
    late.close()
    scene.assert_unharmed()


@pytest.fixture
def beats(cluster) -> Iterator[Callable[[float], bool]]:
    """Whether a keepalive that left after a moment has been answered."""
    control = plane.acquire(etcd_grpc.EtcdConfig.of(cluster.endpoints))
    registrar = control.session.run(control.registrar, TTL_S)
    yield lambda moment: registrar._lease.expires_at > moment + TTL_S
    control.release()


def test_row_4_connected_member_stopped(scene, recovers, beats):
    key, how = f"{scene.service}/127.0.0.1:1", {"weight": 0, "settle_s": 0}
    with (
        etcd_grpc.register(scene.service, port=1, ttl_s=2 * TTL_S, etcd=scene.cluster.endpoints, **how),
        etcd_grpc.register(scene.service, port=2, ttl_s=TTL_S, etcd=scene.cluster.endpoints, **how),
    ):
        member = scene.followed_member()
        before = scene.watcher.bare.followed_at
        with scene.other_than(member) as raw:
            scene.cluster.pause(member)
            began = time.monotonic()
            try:
                recovers(
                    4,
                    "member stopped: until another answers the keepalive",
                    lambda: beats(began),
                    3,
                    began,
                )
                marker = scene.put_marker(raw, "after")
                recovers(
                    4,
                    "member stopped: until the watch is on another and has the event",
                    lambda: marker in scene.watcher.view,
                    8,
                    began,
                )
                assert scene.watcher.bare.followed_at > before
                time.sleep(2 * TTL_S)  # the point: longer than a lease without its beats
                assert key in raw.get(f"{scene.service}/")
            finally:
                scene.cluster.resume(member)
    scene.assert_unharmed()


@pytest.mark.parametrize("cluster", [{"partitionable": True}], indirect=True)
def test_row_5_connected_member_cut_off_from_its_peers(scene, recovers):
    member = scene.followed_member()
    with scene.other_than(member) as raw:
        scene.cluster.partition(member)
        began = time.monotonic()
        try:
            key = scene.put_marker(raw, "after")
            recovers(
                5,
                "member cut off from its peers: until the watch has moved and has the event",
                lambda: key in scene.watcher.view,
                5,
                began,
            )
            assert scene.followed_member() != member
            time.sleep(2 * TTL_S)  # the point: longer than any lease without its beats
        finally:
            scene.cluster.heal()
    scene.assert_unharmed()


@pytest.mark.parametrize("how", ["cut", "stall"])
def test_row_6_client_cut_off_from_all_of_etcd(cluster, service, recovers, told, how):
    with cluster.through_proxies() as proxies, contextlib.ExitStack() as stack:
        etcd = proxies.endpoints
        servers = [stack.enter_context(EchoServer()) for _ in range(SERVERS)]
        mine = [
            stack.enter_context(
                etcd_grpc.register(service, address=server.address, ttl_s=TTL_S, etcd=etcd, settle_s=0)
            )
            for server in servers
        ]
        load = stack.enter_context(Load(service, etcd))
        watcher = stack.enter_context(Watcher(etcd, service))
        outside = stack.enter_context(RawEtcd(cluster.endpoints[0]))
        wait_until(lambda: watcher.resolver.snapshot().connected, "followed")

        getattr(proxies, how)()
        began = time.monotonic()
        recovers(
            6,
            f"client cut off ({how}): until its view is marked stale",
            lambda: not watcher.resolver.snapshot().connected,
            10,
            began,
        )
        wait_until(lambda: not outside.get(f"{service}/"), "etcd has dropped the leases", 30)
        assert len(watcher.view) == SERVERS  # served as it was
        assert watcher.resolver.snapshot().stale_s > 0

        proxies.mend()
        began = time.monotonic()
        recovers(
            6,
            f"client cut off ({how}): from the end until registered again",
            lambda: len(outside.get(f"{service}/")) == SERVERS,
            3,
            began,
        )
        recovers(
            6,
            f"client cut off ({how}): from the end until its view is fresh",
            lambda: watcher.resolver.snapshot().connected,
            5,
            began,
        )
        wait_until(lambda: all(registration.registered for registration in mine), "known to be there")
        load.assert_clean()
        wait_until(lambda: len(watcher.view) == SERVERS, "all are seen")
    wait_until(lambda: any(isinstance(event, events.Fresh) for event in told), "told")
    # A failure in half a minute, and the end of it: not a line for each attempt.
    assert sum(isinstance(event, events.Disconnected) for event in told) <= 4
