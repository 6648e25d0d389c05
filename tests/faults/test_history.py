"""10,000 changes by 20 writers, members killed, paused, compacted: nothing lost, nothing doubled."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import grpc
import pytest
from benchmarks.etcd_metrics import read
from tests.faults.conftest import SLACK
from tests.support.etcd import COMPACT, RawEtcd
from tests.support.history import History, Listed, check
from tests.support.report import record
from tests.support.waiting import wait_until
from tests.support.witnesses import Recorder, Truth, Watcher, Writer, channels_to

from etcd_grpc.codec import Entry, NamingCodec
from etcd_grpc.devcluster import Cluster
from etcd_grpc.etcd import rpc_pb2 as rpc

WRITERS = 20
CHANGES = 10_000
PER_SECOND = 450
PAUSE_S = 1.5  # shorter than what a watch needs to notice
MOVED_S = 8.0 * SLACK  # a silent member is left after 8 s


@dataclass
class Run:
    """One run: who takes part, and what is done to them."""

    cluster: Cluster
    stable: int  # the member that is never disturbed: it is the witness
    raw: RawEtcd
    watchers: Sequence[Watcher]
    writers: Sequence[Writer]

    def kill(self, index: int) -> None:
        leads = index == self.cluster.leader()
        row, fault = (1, "leader killed") if leads else (2, "follower killed")
        held = self._held_by(index)
        began = time.monotonic()
        self.cluster.kill(index)
        self._some_more()
        record(row, f"{fault}: until every writer goes on", time.monotonic() - began, 5)
        bares = [watcher.bare for watcher in self.watchers]

        def broken() -> list[Recorder]:
            return [bare for bare in bares if bare.broke_at > began]

        wait_until(lambda: len(broken()) >= held, "whom it served has noticed")
        for bare in broken():
            wait_until(lambda: bare.followed_at > bare.broke_at, "followed again")  # noqa: B023
            moved_s = bare.followed_at - began
            record(row, f"{fault}: until its watch is followed", moved_s, 1, "nothing lost or doubled")
        self.cluster.restart(index)  # a fresh member: etcd 3.5.1 must not come back on old data
        self.cluster.wait_healthy()

    def pause_briefly(self, index: int) -> None:
        self.cluster.pause(index)
        time.sleep(PAUSE_S)  # the fault itself
        self.cluster.resume(index)
        self.cluster.wait_healthy()
        self.catch_up()

    def catch_up(self) -> None:
        """Wait until every watcher has been told of all that is written now."""
        revision = self.raw.revision()
        for watcher in self.watchers:
            wait_until(lambda: watcher.bare.revision >= revision, "caught up")  # noqa: B023

    def compact_behind(self, index: int) -> None:
        """Compact what a paused member's watchers have not seen; resume when they have moved."""
        held = self._held_by(index)
        assert held, "nobody follows the member: the fault would be none"
        began = time.monotonic()
        self.cluster.pause(index)
        paused_at = self.raw.revision()
        wait_until(lambda: self.raw.revision() > paused_at, "written", 20)
        self.compact()  # at once: who has moved before needs no list
        self._some_more()

        bares = [watcher.bare for watcher in self.watchers]

        def moved() -> list[Recorder]:
            return [bare for bare in bares if bare.listed_at > bare.broke_at > began]

        wait_until(lambda: len(moved()) >= held, "listed again, elsewhere", MOVED_S)
        for bare in moved():
            record(4, "member paused: until its watch has moved", bare.listed_at - began, 8)
            record(7, "compaction while the watch is down", bare.listed_at - bare.broke_at, 1)
        self.cluster.resume(index)
        self.cluster.wait_healthy()

    def _held_by(self, index: int) -> int:
        """How many of the watchers this member serves, as etcd itself says; each watches twice."""
        return read(self.cluster.endpoints[index]).watches // 2

    def compact(self) -> None:
        """Compact everything up to now, as the undisturbed member has it."""
        self.raw.call(COMPACT, rpc.CompactionRequest(revision=self.raw.revision()))

    def _some_more(self) -> None:
        """Wait until every writer has got something through."""
        before = [writer.acknowledged for writer in self.writers]
        for writer, count in zip(self.writers, before, strict=True):
            wait_until(lambda: writer.acknowledged > count + 2, f"{writer.name} goes on", 20)  # noqa: B023


def listed(watcher: Watcher) -> list[Listed]:
    return [item for item in watcher.bare.seen if isinstance(item, Listed)]


def do_all_faults(run: Run) -> None:
    leader = run.cluster.leader()
    others = {0, 1, 2} - {run.stable}
    # A machine that stood still may have made the witness lead: then the first to go is a follower.
    first = leader if leader in others else max(others)
    run.kill(first)
    (second,) = others - {first}
    run.pause_briefly(second)
    run.compact()  # while everybody follows; a list is right for whom etcd has not served yet
    run.catch_up()
    run.compact_behind(most_followed(run, others))
    run.kill(most_followed(run, others))


def most_followed(run: Run, members: Collection[int]) -> int:
    """Of ``members``, the one that serves the most watches."""
    return max(members, key=lambda index: read(run.cluster.endpoints[index]).watches)


def watcher_on(member: str, members: Sequence[str], service: str) -> Watcher:
    """One whose session has begun on ``member``: each chooses for itself."""
    while True:
        watcher = Watcher(members, service)
        if watcher.member == member:
            return watcher
        watcher.close()


def start_writers(
    channels: Sequence[grpc.Channel], service: str, faults_over: threading.Event
) -> list[Writer]:
    def enough(acknowledged: int) -> bool:
        return acknowledged >= CHANGES // WRITERS and faults_over.is_set()

    pace_s = WRITERS / PER_SECOND
    return [Writer(number, channels, service, pace_s, enough) for number in range(WRITERS)]


@pytest.mark.timeout(300)
def test_watchers_see_what_etcd_holds_through_kills_pauses_and_compactions(service):
    faults_over = threading.Event()
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(Cluster(3))
        leader = cluster.leader()
        stable, follower = (i for i in range(3) if i != leader)
        members = cluster.endpoints
        leads, follows = members[leader], members[follower]
        raw = stack.enter_context(RawEtcd(members[stable]))
        prefix = f"{service}/".encode()
        truth = stack.enter_context(Truth(members[stable], prefix))
        # Two of them know only the members that are disturbed.
        watchers = [
            stack.enter_context(watcher_on(leads, (leads, follows), service)),
            stack.enter_context(watcher_on(follows, (follows, leads), service)),
            stack.enter_context(Watcher(members, service)),
        ]
        writers = start_writers(stack.enter_context(channels_to(members)), service, faults_over)
        for writer in writers:
            writer.start()
        try:
            wait_until(lambda: all(writer.acknowledged > 10 for writer in writers), "written")
            do_all_faults(Run(cluster, stable, raw, watchers, writers))
        finally:
            faults_over.set()
            for writer in writers:
                writer.join()
        final, revision = await_quiet(raw, service, truth, watchers)
    writes = [write for writer in writers for write in writer.writes]
    seen = {f"watcher {n}": watcher.bare.seen for n, watcher in enumerate(watchers)}
    say(writes, truth.events, watchers)
    assert not truth.broken
    assert sum(writer.acknowledged for writer in writers) >= CHANGES
    assert check(History(writes, truth.events, final, revision, seen)) == []
    expected = {entry.key.decode(): NamingCodec().decode(entry).address for entry in final}
    for watcher in watchers:
        assert watcher.view == expected
        assert {e.key: e.address for e in watcher.resolver.snapshot().endpoints.values()} == expected
        assert 0 not in watcher.sizes[4:]  # after the first list and the first changes
        # The first, one for each compaction, and one for each member that lags behind the killed one.
        assert len(listed(watcher)) <= 5, "lists instead of what could have been resumed"


def await_quiet(
    raw: RawEtcd, service: str, truth: Truth, watchers: Sequence[Watcher]
) -> tuple[list[Entry], int]:
    """What stands in etcd now, at which revision; everybody has been told of it."""
    final = [Entry(kv.key, kv.value, kv.mod_revision) for kv in raw.get(f"{service}/").values()]
    revision = raw.revision()
    wait_until(lambda: truth.revision >= revision, "the truth is complete", 15)
    for watcher in watchers:
        wait_until(lambda: watcher.bare.revision >= revision, "followed", 15)  # noqa: B023
        wait_until(lambda: watcher.resolver.snapshot().revision >= revision, "told", 15)  # noqa: B023
    return final, revision


def say(writes: Sequence[object], events: Sequence[Entry], watchers: Sequence[Watcher]) -> None:
    """For ``pytest -s``, and for whoever reads a failure."""
    print(f"\n{len(writes)} writes, {len(events)} events in etcd")
    for watcher in watchers:
        told = len(watcher.bare.seen)
        print(f"told {told} times, {len(listed(watcher))} lists, {watcher.bare.breaks} breaks")
