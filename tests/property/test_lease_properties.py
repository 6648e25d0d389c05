"""The lease machine driven as the registrar drives it, against a lease as etcd keeps it."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from etcd_grpc.etcd.lease import Grant, KeepAlive, LeaseMachine, Wait

TTL_S = 9
times = st.floats(0, 20, allow_nan=False)


class DrivesALease(RuleBasedStateMachine):
    """One request at a time is under way; etcd, the network and the clock do what they like."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = LeaseMachine(TTL_S)
        self.now = 1000.0
        # etcd's side: the lease that is there, if any.
        self.alive: int | None = None
        self.granted = 0
        # The registrar's side: what is under way, since when.
        self.under_way: Grant | KeepAlive | None = None
        self.asked_at = 0.0
        self.due = self.now  # when the machine must act: not before, and not after

    @precondition(lambda self: self.under_way is None)
    @rule()
    def act(self) -> None:
        """Do what the machine says at this moment, and check that it may say so."""
        match self.machine.next_action(self.now):
            case Wait(until):
                assert self.now < until == self.due
            case Grant(ttl_s) as action:
                assert ttl_s == TTL_S
                assert not self.machine.held
                self._ask(action)
            case KeepAlive(lease_id) as action:
                assert self.machine.held
                assert lease_id == self.machine.lease_id
                self._ask(action)

    def _ask(self, action: Grant | KeepAlive) -> None:
        self.under_way = action
        self.asked_at = self.now

    @rule(seconds=times)
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.under_way is not None)
    @rule(granted_ttl_s=st.integers(TTL_S, 3 * TTL_S))
    def answered(self, granted_ttl_s: int) -> None:
        """etcd may grant a longer TTL than was asked for."""
        if isinstance(self.under_way, Grant):
            self.granted += 1
            self.alive = 100 + self.granted
            self.machine.granted(self.alive, granted_ttl_s, self.asked_at)
            self.due = self.asked_at + granted_ttl_s / 3
        elif self.alive is not None:
            self.machine.kept(granted_ttl_s, self.asked_at)
            self.due = self.asked_at + granted_ttl_s / 3
        else:
            self.machine.kept(0, self.asked_at)
            assert not self.machine.held
            self.due = self.now
        self.under_way = None

    @precondition(lambda self: self.under_way is not None)
    @rule(delay_s=times)
    def failed(self, delay_s: float) -> None:
        """No answer.  A grant may have been made all the same; that lease expires on its own."""
        self.machine.failed(self.now, delay_s)
        self.due = self.now + delay_s
        self.under_way = None

    @rule()
    def expires(self) -> None:
        """etcd forgets the lease; nobody tells."""
        self.alive = None

    @rule()
    def put_finds_it_lost(self) -> None:
        """etcd refused a put under it; the registrar drops what is under way and begins anew."""
        if self.machine.held:
            self.alive = None
            self.machine.lost()
            self.under_way = None
            self.due = self.now

    @invariant()
    def generation_counts_grants(self) -> None:
        assert self.machine.generation == self.granted

    @invariant()
    def only_etcd_says_that_it_is_lost(self) -> None:
        """What is alive and was granted to us is held: no clock of ours ends it."""
        if self.alive is not None:
            assert self.machine.held
            assert self.machine.lease_id == self.alive

    @invariant()
    def it_acts_when_it_is_time(self) -> None:
        """A third of the TTL after the last beat that succeeded left, and never later."""
        if self.under_way is None:
            assert not isinstance(self.machine.next_action(self.due), Wait)

    @invariant()
    def it_waits_until_it_is_time(self) -> None:
        if self.under_way is None and self.now < self.due:
            assert self.machine.next_action(self.now) == Wait(self.due)

    @invariant()
    def asking_changes_nothing(self) -> None:
        assert self.machine.next_action(self.now) == self.machine.next_action(self.now)


TestDrivesALease = DrivesALease.TestCase
