"""The watch machine against a small etcd: nothing lost, nothing twice, nothing out of order.

The model says what etcd guarantees and does no more: a transaction is one revision; a watch begins
with ``created``, whose header names the *store's* revision, then comes its backlog, in batches of
whole revisions that may be cut into fragments, then new events and, when there are none, progress
notifications.  Everything may stop at any moment: what was said and not yet heard is then lost.
The network between is a queue.  Hypothesis decides who acts next.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from etcd_grpc.codec import Entry
from etcd_grpc.etcd.rpc_pb2 import Event, KeyValue, ResponseHeader, WatchResponse
from etcd_grpc.etcd.watch import Create, Deliver, Effect, List, Refused, Replace, WatchMachine

KEYS = [b"a/1", b"a/2", b"a/3", b"a/4"]
DUPLICATE = "mvcc: duplicate watch ID provided on the WatchStream"

# A transaction: what becomes of each key it touches; None deletes.  Empty: it touched other prefixes.
transactions = st.dictionaries(
    st.sampled_from(KEYS), st.sampled_from([b"x", b"y", b""]) | st.none(), max_size=3
)
View = dict[bytes, Entry]


class Store:
    """What etcd keeps of one prefix."""

    def __init__(self, cluster_id: int = 77) -> None:
        self.cluster_id = cluster_id
        self.compacted = 0
        self.history: list[list[Entry]] = [[]]  # by revision - 1: a new etcd is at revision 1

    @property
    def revision(self) -> int:
        return len(self.history)

    def write(self, transaction: dict[bytes, bytes | None]) -> None:
        before = self.view_at(self.revision)
        self.history.append(
            [
                Entry(key, value, self.revision + 1)
                for key, value in transaction.items()
                if value is not None or key in before  # to delete what is not there is no event
            ]
        )

    def between(self, after: int, until: int) -> list[Entry]:
        """The events of the revisions ``after + 1`` to ``until``."""
        return [entry for transaction in self.history[after:until] for entry in transaction]

    def view_at(self, revision: int) -> View:
        view: View = {}
        apply(view, self.between(0, revision))
        return view

    def header(self) -> ResponseHeader:
        return ResponseHeader(cluster_id=self.cluster_id, revision=self.revision)


def apply(view: View, entries: Sequence[Entry]) -> None:
    for entry in entries:
        if entry.value is None:
            view.pop(entry.key, None)
        else:
            view[entry.key] = entry


def to_event(entry: Entry) -> Event:
    kv = KeyValue(key=entry.key, value=entry.value or b"", mod_revision=entry.revision)
    return Event(type=Event.DELETE if entry.value is None else Event.PUT, kv=kv)


class Stream:
    """A watch stream as etcd serves it, with one number for all watches."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._sent = 0  # the watch has told everything up to this revision ...
        self._watching = False  # ... if there is one
        self._number_taken = False
        self.said: deque[WatchResponse] = deque()
        self._last_events: list[WatchResponse] = []

    def create(self, start_revision: int) -> None:
        if self._number_taken:
            self._say(WatchResponse(created=True, canceled=True, cancel_reason=DUPLICATE))
            return
        self._number_taken = True
        self._sent = start_revision - 1
        self._watching = True
        self._say(WatchResponse(created=True))

    @property
    def behind(self) -> bool:
        return self._watching and self._sent < self._store.revision

    def serve(self, revisions: int, fragment_size: int) -> None:
        """Tell the next so many revisions, or that they are compacted."""
        if not self.behind:
            return
        if self._sent < self._store.compacted:
            self._watching = False
            self._say(WatchResponse(canceled=True, compact_revision=self._store.compacted + 1))
            return
        until = min(self._sent + revisions, self._store.revision)
        events = [to_event(entry) for entry in self._store.between(self._sent, until)]
        self._sent = until
        parts = [events[at : at + fragment_size] for at in range(0, len(events), fragment_size)]
        self._last_events = [
            WatchResponse(events=part, fragment=part is not parts[-1]) for part in parts
        ]
        for response in self._last_events:
            self._say(response)

    def notify_progress(self) -> None:
        """etcd does so only for a watch that has been told everything."""
        if self._watching and self._sent == self._store.revision:
            self._say(WatchResponse())

    def repeat(self) -> None:
        """Tell the last events once more."""
        for response in self._last_events:
            self._say(WatchResponse(events=response.events, fragment=response.fragment))

    def refuse(self, reason: str) -> None:
        self._watching = False
        self._say(WatchResponse(canceled=True, cancel_reason=reason))

    def _say(self, response: WatchResponse) -> None:
        response.header.CopyFrom(self._store.header())
        self.said.append(response)


class Client:
    """Carries out what the machine decides, as the watcher does, and keeps the view."""

    def __init__(self) -> None:
        self.machine = WatchMachine()
        self.stream: Stream | None = None
        self.list_wanted = True  # the watcher begins with a list
        self.answer: tuple[list[Entry], int, int] | None = None
        self.must_reconnect = False
        self.view: View | None = None

    # The network.

    def connect(self, store: Store) -> None:
        self.stream = Stream(store)
        self.must_reconnect = False
        self.carry_out(self.machine.stream_opened())

    def disconnect(self) -> None:
        self.stream = None
        self.machine.stream_broken()

    def ask_for_list(self, store: Store) -> None:
        """etcd reads; the answer is on its way."""
        self.list_wanted = False
        entries = sorted(store.view_at(store.revision).values())
        self.answer = entries, store.revision, store.cluster_id

    def lose_list(self) -> None:
        self.answer = None
        self.list_wanted = True

    def hear_list(self) -> None:
        assert self.answer is not None
        answer, self.answer = self.answer, None
        self.carry_out(self.machine.listed(*answer))

    def hear(self) -> None:
        assert self.stream is not None
        self.carry_out(self.machine.receive(self.stream.said.popleft()))

    def step(self, store: Store) -> bool:
        """Let the next thing that is under way happen; return whether there was one."""
        if self.list_wanted:
            self.ask_for_list(store)
        elif self.answer is not None:
            self.hear_list()
        elif self.stream is None:
            self.connect(store)
        elif self.stream.said:
            self.hear()
        elif self.must_reconnect:
            self.disconnect()
        elif self.stream.behind:
            self.stream.serve(2, 2)
        else:
            return False
        return True

    def settle(self, store: Store) -> None:
        """Let everything happen that is under way."""
        for _ in range(1000):
            if not self.step(store):
                return
        raise AssertionError("it never comes to rest")

    # The machine's wishes.

    def carry_out(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case List():
                    assert not self.list_wanted
                    assert self.answer is None
                    self.list_wanted = True
                case Create(start_revision):
                    assert self.stream is not None
                    self.stream.create(start_revision)
                case Refused():
                    self.must_reconnect = True
                case Replace(entries, revision):
                    self.replace(entries, revision)
                case Deliver(entries, revision):
                    self.deliver(entries, revision)

    def replace(self, entries: Sequence[Entry], revision: int) -> None:
        del revision
        self.view = {entry.key: entry for entry in entries}

    def deliver(self, entries: Sequence[Entry], revision: int) -> None:
        del revision
        assert self.view is not None
        apply(self.view, entries)


class CheckedClient(Client):
    """Compares every delivery with what happened."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self._store = store
        self.delivered = 0  # the revision up to which everything was delivered

    def replace(self, entries: Sequence[Entry], revision: int) -> None:
        super().replace(entries, revision)
        assert revision >= self.delivered
        assert self.view == self._store.view_at(revision)
        self.delivered = revision

    def deliver(self, entries: Sequence[Entry], revision: int) -> None:
        assert entries
        assert list(entries) == self._store.between(self.delivered, revision)
        super().deliver(entries, revision)
        self.delivered = revision


Transactions = list[dict[bytes, bytes | None]]


class Network:
    """What may happen, one method for each; what cannot happen just now is left out."""

    def __init__(self, store: Store, client: Client) -> None:
        self.store = store
        self.client = client
        self.clusters = store.cluster_id

    def happens(self, name: str, *arguments: Any) -> None:
        getattr(self, name)(*arguments)

    # etcd.

    def write(self, transactions: Transactions) -> None:
        for transaction in transactions:
            self.store.write(transaction)

    def compact(self, back: int) -> None:
        self.store.compacted = max(self.store.compacted, self.store.revision - back)

    def serve(self, revisions: int, fragment_size: int) -> None:
        if self.client.stream is not None:
            self.client.stream.serve(revisions, fragment_size)

    def notify_progress(self) -> None:
        if self.client.stream is not None:
            self.client.stream.notify_progress()

    def repeat(self) -> None:
        if self.client.stream is not None:
            self.client.stream.repeat()

    def refuse(self, reason: str) -> None:
        if self.client.stream is not None:
            self.client.stream.refuse(reason)

    def restore_as_another_cluster(self, back: int) -> None:
        self.clusters += 1
        self._restart(Store(self.clusters), back)

    def restore_as_the_same_cluster(self, back: int, meanwhile: Transactions) -> None:
        """Only its revision tells, so the client is back before the store has overtaken it.

        The watch that it gives up then lives on in the stream, and tells what it sees ``meanwhile``.
        """
        if max(1, self.store.revision - back) >= self.client.machine.revision:
            return
        self._restart(Store(self.store.cluster_id), back)
        self.client.connect(self.store)
        self.hear(1)
        self.ask_for_list()
        self.write(meanwhile)
        self.serve(len(self.store.history), 2)

    def _restart(self, restored: Store, back: int) -> None:
        restored.history = self.store.history[: max(1, self.store.revision - back)]
        restored.compacted = min(self.store.compacted, restored.revision)
        self.store = restored
        self.disconnect()
        self.lose_list()

    # The network and the client.

    def connect(self) -> None:
        if self.client.stream is None:
            self.client.connect(self.store)

    def disconnect(self) -> None:
        if self.client.stream is not None:
            self.client.disconnect()

    def ask_for_list(self) -> None:
        if self.client.list_wanted:
            self.client.ask_for_list(self.store)

    def lose_list(self) -> None:
        if self.client.answer is not None:
            self.client.lose_list()

    def hear_list(self) -> None:
        if self.client.answer is not None:
            self.client.hear_list()

    def hear(self, count: int) -> None:
        for _ in range(count):
            if self.client.stream is not None and self.client.stream.said:
                self.client.hear()

    def go_on(self, steps: int) -> None:
        for _ in range(steps):
            self.client.step(self.store)

    def comes_to_rest(self) -> None:
        """Whatever has happened: once the network works, the view is what the store holds."""
        self.client.settle(self.store)
        assert self.client.view == self.store.view_at(self.store.revision)


def happening(name: str, *arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.tuples(st.just(name), *arguments)


small = st.integers(1, 3)
several = st.lists(transactions, min_size=1, max_size=4)
ordinary = [
    *[happening("go_on", st.integers(1, 8)), happening("write", several)] * 4,  # or few get far
    *[happening("serve", small, small), happening("hear", small)] * 2,
    happening("connect"),
    happening("disconnect"),
    happening("ask_for_list"),
    happening("hear_list"),
    happening("lose_list"),
    happening("notify_progress"),
    happening("repeat"),
    happening("refuse", st.sampled_from(["permission denied", ""])),
    happening("compact", st.integers(0, 3)),
]
restores = [
    *[happening("comes_to_rest")] * 3,
    happening("restore_as_another_cluster", st.integers(0, 4)),
    happening("restore_as_the_same_cluster", st.integers(1, 4), st.lists(transactions, max_size=6)),
]
Course = list[tuple[Any, ...]]


def courses(of: list[st.SearchStrategy[tuple[Any, ...]]]) -> st.SearchStrategy[Course]:
    # Not one_of, which would count what stands there four times once.
    return st.lists(st.sampled_from(of).flatmap(lambda one: one), min_size=15, max_size=60)


@given(courses(ordinary))
def test_every_event_is_delivered_once_and_in_order(course: Course) -> None:
    store = Store()
    client = CheckedClient(store)
    network = Network(store, client)
    revision = 0
    for what in course:
        network.happens(*what)
        assert client.machine.revision >= revision
        revision = client.machine.revision
        # So the view is empty only if the store was, also while it is listed again.
        assert client.view is None or client.view == store.view_at(revision)
    network.comes_to_rest()


@given(courses(ordinary + restores))
def test_view_comes_to_be_that_of_a_store_that_was_restored_or_replaced(course: Course) -> None:
    network = Network(Store(), Client())
    for what in course:
        network.happens(*what)
    network.comes_to_rest()
