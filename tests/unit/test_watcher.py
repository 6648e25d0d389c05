"""The driver of the watch machines, on an etcd in memory that answers as etcd 3.5 was measured to.

Above all: the number of a watch stays taken on its stream, also after etcd has cancelled the watch
because of a compaction; to create it again is refused ("duplicate watch ID").
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, cast

import pytest

from etcd_grpc.codec import Entry
from etcd_grpc.errors import EtcdUnavailableError
from etcd_grpc.etcd import methods
from etcd_grpc.etcd import rpc_pb2 as rpc
from etcd_grpc.etcd.transport import Transport
from etcd_grpc.etcd.watcher import Watcher


class Stream:
    """A watch stream as a member of etcd serves it."""

    def __init__(self, etcd: Etcd) -> None:
        self._etcd = etcd
        self.member = etcd.member
        self._responses: asyncio.Queue[rpc.WatchResponse | EtcdUnavailableError] = asyncio.Queue()
        self.watches: dict[int, rpc.WatchCreateRequest] = {}
        self.taken: set[int] = set()

    # What the driver does.

    def send(self, request: rpc.WatchRequest) -> None:
        if request.HasField("cancel_request"):
            number = request.cancel_request.watch_id
            self.watches.pop(number, None)
            self.taken.discard(number)
            self.say(rpc.WatchResponse(watch_id=number, canceled=True))
            return
        asked = request.create_request
        refusal = self._etcd.refusals.get(asked.key) or (
            "mvcc: duplicate watch ID provided on the WatchStream"
            if asked.watch_id in self.taken
            else ""
        )
        if refusal:
            self.say(rpc.WatchResponse(watch_id=-1, created=True, canceled=True, cancel_reason=refusal))
            return
        self.taken.add(asked.watch_id)
        self.say(rpc.WatchResponse(watch_id=asked.watch_id, created=True))
        if asked.start_revision <= self._etcd.compacted:
            compacted = rpc.WatchResponse(canceled=True, compact_revision=self._etcd.compacted + 1)
            compacted.watch_id = asked.watch_id
            self.say(compacted)
            return
        self.watches[asked.watch_id] = asked
        for event in self._etcd.history:
            if event.kv.mod_revision >= asked.start_revision:
                self.tell(asked, event)

    async def receive(self) -> rpc.WatchResponse:
        answer = await self._responses.get()
        if isinstance(answer, EtcdUnavailableError):
            raise answer
        return answer

    def close(self) -> None:
        self.fail("closed")

    # What etcd does.

    def say(self, response: rpc.WatchResponse) -> None:
        response.header.revision = self._etcd.revision
        response.header.cluster_id = self._etcd.cluster_id
        self._responses.put_nowait(response)

    def tell(self, watch: rpc.WatchCreateRequest, event: rpc.Event) -> None:
        if event.kv.key == watch.key or watch.key <= event.kv.key < watch.range_end:
            self.say(rpc.WatchResponse(watch_id=watch.watch_id, events=[event]))

    def fail(self, why: str) -> None:
        self.watches.clear()
        self._responses.put_nowait(EtcdUnavailableError(why))


class Etcd:
    """The store, and the transport to it."""

    def __init__(self) -> None:
        self.revision = 1
        self.compacted = 0
        self.cluster_id = 77
        self.history: list[rpc.Event] = []
        self.refusals: dict[bytes, str] = {}  # by prefix
        self.streams: list[Stream] = []
        self.down = 0  # so many attempts to open a stream fail
        self.lists = 0
        self.tokens_forgotten = 0
        # As Transport has them.
        self.members = ("10.0.0.1:2379", "10.0.0.2:2379")
        self.member = self.members[0]
        self.last_error = ""
        self.user = "app"
        self.on_silence: Callable[[str], None] = lambda _member: None
        self.silent: set[str] = set()  # members that answer nothing
        self.asked: list[str] = []  # whom the driver has asked for a sign of life
        self.spreads = 0

    def put(self, key: bytes, value: bytes = b"v") -> None:
        self._write(rpc.Event(kv=rpc.KeyValue(key=key, value=value)))

    def delete(self, key: bytes) -> None:
        self._write(rpc.Event(type=rpc.Event.DELETE, kv=rpc.KeyValue(key=key)))

    def _write(self, event: rpc.Event) -> None:
        self.revision += 1
        event.kv.mod_revision = self.revision
        self.history.append(event)
        if self.streams:
            for watch in list(self.streams[-1].watches.values()):
                self.streams[-1].tell(watch, event)

    def compact(self) -> None:
        self.compacted = self.revision

    def restore(self, revision: int) -> None:
        """From a backup: what came after ``revision`` is gone, and so are all streams."""
        self.history = [event for event in self.history if event.kv.mod_revision <= revision]
        self.revision = revision
        self.streams[-1].fail("restarted")

    def live(self, key: bytes, end: bytes) -> dict[bytes, rpc.KeyValue]:
        found: dict[bytes, rpc.KeyValue] = {}
        for event in self.history:
            if key <= event.kv.key < end:
                found.pop(event.kv.key, None)
                if event.type != rpc.Event.DELETE:
                    found[event.kv.key] = event.kv
        return found

    # As Transport has them.

    def rotate(self, away_from: str) -> None:
        others = [member for member in self.members if member != away_from]
        self.member = others[0]

    def spread(self) -> bool:
        self.spreads += 1
        self.rotate(self.member)
        return True

    async def answers(self, member: str) -> bool:
        self.asked.append(member)
        return member not in self.silent

    def forget_token(self) -> None:
        self.tokens_forgotten += 1

    async def stream(self, method: Any) -> Stream:
        assert method is methods.WATCH
        if self.down:
            self.down -= 1
            raise EtcdUnavailableError(f"{self.member} is down")
        self.streams.append(Stream(self))
        return self.streams[-1]

    async def call(self, method: Any, request: rpc.RangeRequest, **_: float) -> rpc.RangeResponse:
        assert method is methods.RANGE
        self.lists += 1
        found = sorted(self.live(request.key, request.range_end).items())
        page = [kv for _, kv in found][: request.limit]
        header = rpc.ResponseHeader(revision=self.revision, cluster_id=self.cluster_id)
        return rpc.RangeResponse(header=header, kvs=page, more=len(found) > len(page))


class Sink:
    """The view that the calls add up to."""

    def __init__(self) -> None:
        self.view: dict[bytes, bytes] = {}
        self.revision = 0
        self.replaced = 0
        self.applied: list[Entry] = []
        self.troubles: list[str] = []
        self.is_followed = False

    def replace(self, entries: Sequence[Entry], revision: int) -> None:
        self.replaced += 1
        self.view.clear()
        self._fold(entries, revision)

    def apply(self, entries: Sequence[Entry], revision: int) -> None:
        self.applied += entries
        self._fold(entries, revision)

    def followed(self, yes: bool, why: str) -> None:
        self.is_followed = yes
        if not yes:
            self.troubles.append(why)

    def _fold(self, entries: Sequence[Entry], revision: int) -> None:
        self.revision = revision
        for entry in entries:
            self.view.pop(entry.key, None)
            if entry.value is not None:
                self.view[entry.key] = entry.value


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


@pytest.fixture
def etcd() -> Etcd:
    return Etcd()


@pytest.fixture
async def watcher(etcd: Etcd) -> AsyncIterator[Watcher]:
    made = Watcher(cast("Transport", etcd), asyncio.get_running_loop(), random.Random(1))
    yield made
    made.close()


async def followed(watcher: Watcher, prefix: bytes = b"a/") -> Sink:
    sink = Sink()
    watcher.add(prefix, sink)
    await until(lambda: sink.is_followed)
    return sink


async def test_prefix_is_listed_and_then_followed(etcd: Etcd, watcher: Watcher) -> None:
    etcd.put(b"a/1")
    etcd.put(b"b/1")
    sink = await followed(watcher)
    assert sink.view == {b"a/1": b"v"}
    etcd.put(b"a/2", b"w")
    etcd.put(b"b/2")
    etcd.delete(b"a/1")
    await until(lambda: sink.revision == etcd.revision)
    assert sink.view == {b"a/2": b"w"}
    assert [entry.key for entry in sink.applied] == [b"a/2", b"a/1"]


async def test_long_list_is_read_in_pages(etcd: Etcd, watcher: Watcher) -> None:
    for number in range(4_500):
        etcd.put(b"a/%05d" % number)
    sink = await followed(watcher)
    assert len(sink.view) == 4_500
    assert (etcd.lists, sink.replaced) == (3, 1)


async def test_all_watches_share_one_stream(etcd: Etcd, watcher: Watcher) -> None:
    sinks = [await followed(watcher, prefix) for prefix in (b"a/", b"b/", b"c/")]
    etcd.put(b"b/1")
    await until(lambda: sinks[1].view == {b"b/1": b"v"})
    assert [sink.view for sink in sinks] == [{}, {b"b/1": b"v"}, {}]
    assert len(etcd.streams) == 1


async def test_broken_stream_is_resumed_without_a_list_at_the_next_member(
    etcd: Etcd, watcher: Watcher
) -> None:
    sink = await followed(watcher)
    etcd.put(b"a/1")
    await until(lambda: sink.revision == etcd.revision)
    etcd.streams[-1].fail("member 1 is gone")
    etcd.put(b"a/2")
    etcd.put(b"a/3")
    await until(lambda: sink.revision == etcd.revision)
    assert [entry.key for entry in sink.applied] == [b"a/1", b"a/2", b"a/3"]
    assert sink.replaced == 1
    assert sink.troubles == ["member 1 is gone"]
    assert etcd.member == etcd.members[1]


async def test_removed_watch_hears_nothing_more_and_the_others_do(etcd: Etcd, watcher: Watcher) -> None:
    removed = Sink()
    number = watcher.add(b"a/", removed)
    kept = await followed(watcher, b"b/")
    await until(lambda: removed.is_followed)
    watcher.remove(number)
    etcd.put(b"a/1")
    etcd.put(b"b/1")
    await until(lambda: kept.view == {b"b/1": b"v"})
    assert removed.view == {}
    assert len(etcd.streams) == 1


async def test_last_watch_that_is_removed_ends_the_stream(etcd: Etcd, watcher: Watcher) -> None:
    sink = Sink()
    number = watcher.add(b"a/", sink)
    await until(lambda: sink.is_followed)
    watcher.remove(number)
    assert not etcd.streams[-1].watches
    again = await followed(watcher)
    etcd.put(b"a/1")
    await until(lambda: again.view == {b"a/1": b"v"})
    assert sink.view == {}


async def test_refused_watch_is_made_again_with_a_new_token(etcd: Etcd, watcher: Watcher) -> None:
    etcd.refusals[b"a/"] = "permission denied"
    sink = Sink()
    watcher.add(b"a/", sink)
    await until(lambda: etcd.tokens_forgotten > 0)
    etcd.refusals.clear()
    await until(lambda: sink.is_followed)
    etcd.put(b"a/1")
    await until(lambda: sink.view == {b"a/1": b"v"})


class _VirtualTime(asyncio.SelectorEventLoop):
    """A loop whose timers cost no time: its clock jumps to the next one when nothing else is to do."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        selector: Any = self._selector  # type: ignore[attr-defined]
        select = selector.select

        def jump(timeout: float | None) -> Any:
            assert timeout is not None, "nothing will ever happen"
            self._now += timeout
            return select(0)

        selector.select = jump

    def time(self) -> float:
        return self._now


def test_forbidden_prefix_is_asked_for_now_and_then_and_disturbs_no_other(etcd: Etcd) -> None:
    etcd.refusals[b"b/"] = "permission denied"
    allowed, forbidden = Sink(), Sink()

    async def for_a_minute() -> None:
        watcher = Watcher(cast("Transport", etcd), asyncio.get_running_loop(), random.Random(1))
        watcher.add(b"a/", allowed)
        watcher.add(b"b/", forbidden)
        await asyncio.sleep(60)
        etcd.put(b"a/1")
        etcd.refusals.clear()
        await asyncio.sleep(10)
        etcd.put(b"b/1")
        await asyncio.sleep(1)
        watcher.close()

    with asyncio.Runner(loop_factory=_VirtualTime) as runner:
        runner.run(for_a_minute())
    refusals = sum("etcd refused the watch: permission denied" in why for why in forbidden.troubles)
    assert 10 <= refusals <= 62  # it goes on, at most once a second
    assert len(etcd.streams) == 2  # one more, for a new token
    assert not allowed.troubles
    assert "user 'app' needs a role with read permission on prefix 'b/'" in forbidden.troubles[0]
    assert (allowed.view, forbidden.view) == ({b"a/1": b"v"}, {b"b/1": b"v"})


def test_broken_watch_is_told_once_and_so_is_its_end(
    etcd: Etcd, caplog: pytest.LogCaptureFixture
) -> None:
    sink = Sink()

    async def with_an_outage() -> None:
        watcher = Watcher(cast("Transport", etcd), asyncio.get_running_loop(), random.Random(1))
        watcher.add(b"a/", sink)
        await asyncio.sleep(1)
        etcd.down = 10
        etcd.streams[-1].fail("member 1 is gone")
        await asyncio.sleep(60)
        watcher.close()

    with asyncio.Runner(loop_factory=_VirtualTime) as runner:
        runner.run(with_an_outage())
    assert len(sink.troubles) == 11
    assert sink.is_followed
    broken, well = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "member 1 is gone" in broken
    assert "watched again" in well
    assert etcd.member in well


async def test_receiver_that_raises_does_not_end_the_watch(
    etcd: Etcd, watcher: Watcher, caplog: pytest.LogCaptureFixture
) -> None:
    class Raises(Sink):
        def apply(self, entries: Sequence[Entry], revision: int) -> None:
            super().apply(entries, revision)
            if entries[0].value == b"bad":
                raise RuntimeError("a defect")

    sink = Raises()
    watcher.add(b"a/", sink)
    await until(lambda: sink.is_followed)
    etcd.put(b"a/1", b"bad")
    etcd.put(b"a/2")
    await until(lambda: b"a/2" in sink.view)
    assert "a defect" in caplog.text


async def compacted_behind_its_back(etcd: Etcd, *sinks: Sink) -> None:
    """The stream breaks, and when it is there again, the history that is missing is not."""
    before = etcd.streams[-1]
    before.fail("member 1 is gone")
    etcd.put(b"a/9")
    etcd.compact()
    await until(lambda: all(sink.replaced == 2 for sink in sinks))
    etcd.put(b"a/10")
    await until(lambda: all(b"a/10" in sink.view for sink in sinks))
    assert all(sink.view == {b"a/9": b"v", b"a/10": b"v"} for sink in sinks)


async def test_compaction_is_answered_by_a_list_and_following_goes_on(
    etcd: Etcd, watcher: Watcher
) -> None:
    await compacted_behind_its_back(etcd, await followed(watcher))


async def test_compaction_is_no_refusal_and_costs_no_second_stream(
    etcd: Etcd, watcher: Watcher
) -> None:
    """The watch that replaces the compacted one needs a number of its own on that stream."""
    sink = await followed(watcher)
    await compacted_behind_its_back(etcd, sink)
    assert sink.troubles == ["member 1 is gone"]
    assert etcd.tokens_forgotten == 0
    assert len(etcd.streams) == 2


async def test_store_that_went_back_is_listed_and_following_goes_on(
    etcd: Etcd, watcher: Watcher
) -> None:
    sink = await followed(watcher)
    for number in range(5):
        etcd.put(b"a/%d" % number)
    await until(lambda: sink.revision == etcd.revision)
    etcd.restore(3)
    await until(lambda: sink.view == {b"a/0": b"v", b"a/1": b"v"})
    etcd.put(b"a/new")
    await until(lambda: b"a/new" in sink.view)


async def test_store_that_went_back_is_no_refusal_and_costs_no_second_stream(
    etcd: Etcd, watcher: Watcher
) -> None:
    """The watch that was created before etcd was known to be older still has its number."""
    sink = await followed(watcher)
    for number in range(5):
        etcd.put(b"a/%d" % number)
    await until(lambda: sink.revision == etcd.revision)
    etcd.restore(3)
    await until(lambda: sink.replaced == 2)
    etcd.put(b"a/new")
    await until(lambda: b"a/new" in sink.view)
    assert sink.troubles == ["restarted"]
    assert etcd.tokens_forgotten == 0
    assert len(etcd.streams) == 2


def in_virtual_time(etcd: Etcd, sink: Sink, script: Callable[[Watcher], Any], **options: float) -> None:
    async def play() -> None:
        loop = asyncio.get_running_loop()
        watcher = Watcher(cast("Transport", etcd), loop, random.Random(1), **options)
        watcher.add(b"a/", sink)
        await asyncio.sleep(0.5)
        await script(watcher)
        watcher.close()

    with asyncio.Runner(loop_factory=_VirtualTime) as runner:
        runner.run(play())


def test_silent_member_is_asked_for_a_sign_of_life_and_left_without_one(etcd: Etcd) -> None:
    sink = Sink()

    async def stops(_: Watcher) -> None:
        await asyncio.sleep(30)
        assert len(etcd.streams) == 1  # it answers, so nothing is wrong with silence
        assert 3 <= len(etcd.asked) <= 7
        etcd.silent.add(etcd.member)
        await asyncio.sleep(6)
        assert sink.troubles == [f"etcd member {etcd.members[0]} does not answer any more"]
        assert etcd.member == etcd.members[1]
        assert sink.is_followed

    in_virtual_time(etcd, sink, stops)


def test_member_that_did_not_answer_a_request_is_asked_at_once(etcd: Etcd) -> None:
    sink = Sink()

    async def stops(_: Watcher) -> None:
        etcd.silent.add(etcd.member)
        etcd.on_silence("10.0.0.9:2379")
        await asyncio.sleep(0.1)
        assert not etcd.asked  # that is another member
        etcd.on_silence(etcd.member)
        await asyncio.sleep(0.1)
        assert etcd.member == etcd.members[1]

    in_virtual_time(etcd, sink, stops)


def test_connection_of_age_moves_to_another_member_without_a_gap(etcd: Etcd) -> None:
    sink = Sink()

    async def ages(_: Watcher) -> None:
        await asyncio.sleep(150)
        etcd.put(b"a/1")
        await asyncio.sleep(1)
        assert sink.view == {b"a/1": b"v"}

    in_virtual_time(etcd, sink, ages, max_age_s=100)
    assert etcd.spreads == 1
    assert len(etcd.streams) == 2
    assert not sink.troubles
    assert sink.replaced == 1


async def test_one_key_that_is_known_already_is_followed_without_a_list(
    etcd: Etcd, watcher: Watcher
) -> None:
    etcd.put(b"a/1")
    sink = Sink()
    watcher.add_key(b"a/1", sink, (etcd.revision, etcd.cluster_id))
    await until(lambda: sink.is_followed)
    etcd.put(b"a/11")
    etcd.delete(b"a/1")
    await until(lambda: bool(sink.applied))
    assert [(entry.key, entry.value) for entry in sink.applied] == [(b"a/1", None)]
    assert etcd.lists == 0
