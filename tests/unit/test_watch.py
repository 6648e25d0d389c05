"""The watch machine, row by row of the table in its docstring, and what the rows add up to."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from etcd_grpc.codec import Entry
from etcd_grpc.etcd.rpc_pb2 import Event, KeyValue, ResponseHeader, WatchResponse
from etcd_grpc.etcd.watch import (
    Create,
    Deliver,
    Effect,
    List,
    Refused,
    Replace,
    State,
    WatchMachine,
)

CLUSTER = 77
LISTED = [Entry(b"a/1", b"one", 4)]


# What etcd says.


def header(revision: int, cluster_id: int = CLUSTER) -> ResponseHeader:
    return ResponseHeader(revision=revision, cluster_id=cluster_id)


def created(revision: int, cluster_id: int = CLUSTER) -> WatchResponse:
    return WatchResponse(header=header(revision, cluster_id), created=True)


def put(revision: int, name: str = "x") -> Event:
    kv = KeyValue(key=f"a/{name}".encode(), value=b"%d" % revision, mod_revision=revision)
    return Event(type=Event.PUT, kv=kv)


def delete(revision: int, name: str = "x") -> Event:
    return Event(type=Event.DELETE, kv=KeyValue(key=f"a/{name}".encode(), mod_revision=revision))


def events(*items: Event, store: int = 0, fragment: bool = False) -> WatchResponse:
    """A response with ``items``; ``store`` is the store's revision at the time."""
    revision = store or max(item.kv.mod_revision for item in items)
    return WatchResponse(header=header(revision), events=items, fragment=fragment)


def progress(revision: int) -> WatchResponse:
    return WatchResponse(header=header(revision))


def compacted(revision: int = 9) -> WatchResponse:
    return WatchResponse(header=header(0), canceled=True, compact_revision=revision)


def refused(reason: str = "permission denied") -> WatchResponse:
    return WatchResponse(header=header(20), created=True, canceled=True, cancel_reason=reason)


def entry(revision: int, name: str = "x") -> Entry:
    return Entry(f"a/{name}".encode(), b"%d" % revision, revision)


# A machine in each state; the view is that of revision 10.


def listing() -> WatchMachine:
    return WatchMachine()


def listing_with_stream() -> WatchMachine:
    machine = WatchMachine()
    machine.stream_opened()
    return machine


def idle() -> WatchMachine:
    machine = WatchMachine()
    machine.listed(LISTED, 10, CLUSTER)
    return machine


def creating() -> WatchMachine:
    machine = idle()
    machine.stream_opened()
    return machine


def watching() -> WatchMachine:
    machine = creating()
    machine.receive(created(10))
    return machine


IN_STATE = {
    State.LISTING: listing_with_stream,
    State.IDLE: idle,
    State.CREATING: creating,
    State.WATCHING: watching,
}


@pytest.mark.parametrize("state", State)
def test_there_is_a_way_into_every_state(state: State) -> None:
    assert IN_STATE[state]().state is state


# Events, as functions of a machine.

Step = Callable[[WatchMachine], Sequence[Effect]]


def hears(response: WatchResponse) -> Step:
    return lambda machine: machine.receive(response)


def is_listed(revision: int = 12, cluster_id: int = CLUSTER) -> Step:
    return lambda machine: machine.listed(LISTED, revision, cluster_id)


def stream_opens(machine: WatchMachine) -> Sequence[Effect]:
    return machine.stream_opened()


def stream_breaks(machine: WatchMachine) -> Sequence[Effect]:
    machine.stream_broken()
    return []


TABLE: list[tuple[str, Callable[[], WatchMachine], Step, list[Effect], State]] = [
    (
        "listed, stream there",
        listing_with_stream,
        is_listed(),
        [Replace(LISTED, 12), Create(13)],
        State.CREATING,
    ),
    ("listed, no stream", listing, is_listed(), [Replace(LISTED, 12)], State.IDLE),
    ("stream opened while listing", listing, stream_opens, [], State.LISTING),
    ("stream broken while listing", listing_with_stream, stream_breaks, [], State.LISTING),
    ("created", creating, hears(created(10)), [], State.WATCHING),
    ("created, store is ahead", creating, hears(created(500)), [], State.WATCHING),
    ("created, store went back", creating, hears(created(9)), [List(found=9)], State.LISTING),
    ("created, other cluster", creating, hears(created(10, 78)), [List(found=10)], State.LISTING),
    ("created, other cluster ahead", creating, hears(created(99, 78)), [List(found=99)], State.LISTING),
    ("events", watching, hears(events(put(11))), [Deliver([entry(11)], 11)], State.WATCHING),
    ("compacted while creating", creating, hears(compacted()), [List(compacted=9)], State.LISTING),
    ("compacted while watching", watching, hears(compacted()), [List(compacted=9)], State.LISTING),
    ("refused", creating, hears(refused()), [Refused("permission denied")], State.IDLE),
    ("refused while watching", watching, hears(refused()), [Refused("permission denied")], State.IDLE),
    ("refused, no reason", creating, hears(refused("")), [Refused("no reason given")], State.IDLE),
    ("broken while creating", creating, stream_breaks, [], State.IDLE),
    ("broken while watching", watching, stream_breaks, [], State.IDLE),
    ("broken while idle", idle, stream_breaks, [], State.IDLE),
    ("opened while idle", idle, stream_opens, [Create(11)], State.CREATING),
    ("progress", watching, hears(progress(50)), [], State.WATCHING),
    ("listed again while idle", idle, is_listed(), [], State.IDLE),
    ("listed again while creating", creating, is_listed(), [], State.CREATING),
    ("listed again while watching", watching, is_listed(), [], State.WATCHING),
]


@pytest.mark.parametrize(
    ("start", "step", "effects", "state"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_table(
    start: Callable[[], WatchMachine], step: Step, effects: list[Effect], state: State
) -> None:
    machine = start()
    assert step(machine) == effects
    assert machine.state is state


# The revision: the last one up to which everything was delivered.


def test_revision_is_none_before_the_first_list() -> None:
    assert listing().revision == 0


def test_revision_is_that_of_the_list() -> None:
    assert idle().revision == 10


def test_created_is_no_progress() -> None:
    """Its header names the store's revision; a disconnect before the backlog must not skip it."""
    machine = creating()
    machine.receive(created(310))
    assert machine.revision == 10
    machine.stream_broken()
    assert machine.stream_opened() == [Create(11)]


def test_header_of_events_is_no_progress() -> None:
    """It names the store's revision, and more of the backlog may follow."""
    machine = watching()
    assert machine.receive(events(put(11), store=310)) == [Deliver([entry(11)], 11)]
    machine.stream_broken()
    assert machine.stream_opened() == [Create(12)]


def test_timed_progress_notification_is_progress() -> None:
    machine = watching()
    assert machine.receive(progress(50)) == []
    assert machine.revision == 50
    machine.stream_broken()
    assert machine.stream_opened() == [Create(51)]


def test_progress_never_moves_the_revision_back() -> None:
    machine = watching()
    machine.receive(events(put(30)))
    machine.receive(progress(20))
    assert machine.revision == 30


def test_resume_is_from_the_revision_after_the_last_delivered_one() -> None:
    machine = watching()
    machine.receive(events(put(11), put(15)))
    machine.stream_broken()
    assert machine.stream_opened() == [Create(16)]
    machine.receive(created(40))
    assert machine.receive(events(put(16), store=40)) == [Deliver([entry(16)], 16)]


# Deliveries.


def test_put_has_its_value_and_delete_has_none() -> None:
    assert watching().receive(events(put(11, "a"), delete(12, "b"))) == [
        Deliver([Entry(b"a/a", b"11", 11), Entry(b"a/b", None, 12)], 12)
    ]


def test_empty_value_is_not_a_delete() -> None:
    empty = Event(kv=KeyValue(key=b"a/x", value=b"", mod_revision=11))
    assert watching().receive(events(empty)) == [Deliver([Entry(b"a/x", b"", 11)], 11)]


def test_keys_of_one_transaction_are_delivered_together() -> None:
    machine = watching()
    assert machine.receive(events(put(11, "a"), put(11, "b"), delete(11, "c"))) == [
        Deliver([entry(11, "a"), entry(11, "b"), Entry(b"a/c", None, 11)], 11)
    ]


def test_duplicates_are_dropped() -> None:
    machine = watching()
    machine.receive(events(put(11), put(12)))
    assert machine.receive(events(put(11), put(12))) == []
    assert machine.receive(events(put(12))) == []
    assert machine.revision == 12


def test_new_events_beside_duplicates_are_delivered() -> None:
    machine = watching()
    machine.receive(events(put(11), put(12)))
    assert machine.receive(events(put(12), put(13))) == [Deliver([entry(13)], 13)]


def test_events_that_the_list_already_had_are_dropped() -> None:
    assert watching().receive(events(put(9), put(10), put(11))) == [Deliver([entry(11)], 11)]


# Fragments.


def test_fragments_are_delivered_as_one_after_the_last() -> None:
    machine = watching()
    assert machine.receive(events(put(11, "a"), fragment=True)) == []
    assert machine.receive(events(put(11, "b"), fragment=True)) == []
    assert machine.revision == 10
    assert machine.receive(events(put(11, "c"))) == [
        Deliver([entry(11, "a"), entry(11, "b"), entry(11, "c")], 11)
    ]
    assert machine.revision == 11


def test_unfinished_fragments_die_with_the_stream_and_come_again() -> None:
    machine = watching()
    machine.receive(events(put(11, "a"), fragment=True))
    machine.stream_broken()
    assert machine.stream_opened() == [Create(11)]
    machine.receive(created(11))
    assert machine.receive(events(put(11, "a"), put(11, "b"))) == [
        Deliver([entry(11, "a"), entry(11, "b")], 11)
    ]


@pytest.mark.parametrize("end", [compacted(), refused()], ids=["compacted", "refused"])
def test_unfinished_fragments_die_with_the_watch(end: WatchResponse) -> None:
    machine = watching()
    machine.receive(events(put(11, "a"), fragment=True))
    machine.receive(end)
    machine.listed([], 20, CLUSTER)
    machine.stream_broken()
    machine.stream_opened()
    machine.receive(created(20))
    assert machine.receive(events(put(21, "b"))) == [Deliver([entry(21, "b")], 21)]


def test_finished_fragments_are_not_delivered_again() -> None:
    machine = watching()
    machine.receive(events(put(11, "a"), fragment=True))
    machine.receive(events(put(11, "b")))
    assert machine.receive(events(put(12, "c"))) == [Deliver([entry(12, "c")], 12)]


# Lists.


def test_empty_prefix_is_replaced_by_nothing() -> None:
    assert listing().listed([], 3, CLUSTER) == [Replace([], 3)]


def test_stream_that_broke_while_listing_is_not_used() -> None:
    machine = listing_with_stream()
    machine.stream_broken()
    assert machine.listed(LISTED, 12, CLUSTER) == [Replace(LISTED, 12)]
    assert machine.state is State.IDLE
    assert machine.stream_opened() == [Create(13)]


def test_list_after_compaction_goes_on_behind_it() -> None:
    machine = watching()
    machine.receive(compacted(100))
    assert machine.listed(LISTED, 120, CLUSTER) == [Replace(LISTED, 120), Create(121)]


def test_list_may_bring_the_revision_back() -> None:
    """etcd was restored from a backup: waiting for the old revision would be for ever."""
    machine = creating()
    machine.receive(created(3))
    assert machine.listed(LISTED, 3, CLUSTER) == [Replace(LISTED, 3), Create(4)]
    machine.receive(created(3))
    assert machine.state is State.WATCHING
    assert machine.receive(events(put(4))) == [Deliver([entry(4)], 4)]


def test_other_cluster_is_accepted_after_a_list_of_it() -> None:
    machine = creating()
    machine.receive(created(10, 78))
    machine.listed(LISTED, 12, 78)
    machine.receive(created(12, 78))
    assert machine.state is State.WATCHING


# Answers to a watch that was given up.

LATE = {
    "created": created(20),
    "events": events(put(11)),
    "fragment": events(put(11), fragment=True),
    "progress": progress(20),
    "compacted": compacted(),
    "refused": refused(),
}


@pytest.mark.parametrize("state", [State.LISTING, State.IDLE])
@pytest.mark.parametrize("late", LATE.values(), ids=LATE.keys())
def test_late_answer_is_ignored_where_nothing_is_watched(state: State, late: WatchResponse) -> None:
    machine = IN_STATE[state]()
    before = machine.revision
    assert machine.receive(late) == []
    assert (machine.state, machine.revision) == (state, before)


@pytest.mark.parametrize("late", ["events", "fragment", "progress"])
def test_what_comes_before_created_is_of_a_watch_given_up_and_ignored(late: str) -> None:
    """etcd sends a watch's events after its ``created``.

    A watch that was given up because the store went back lives on in the stream.  Its events begin
    at the old revision: to deliver one would skip all that lies between the list and it.
    """
    machine = creating()
    machine.receive(created(3))  # the store went back; that watch is for revision 11 and on
    machine.listed([], 3, CLUSTER)
    assert machine.state is State.CREATING
    assert machine.receive(LATE[late]) == []
    assert machine.revision == 3
    machine.receive(created(11))
    assert machine.receive(events(put(4), put(11))) == [Deliver([entry(4), entry(11)], 11)]
