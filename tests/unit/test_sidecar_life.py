"""What signals, probes and the program's end lead to."""

from __future__ import annotations

import signal

import pytest

from etcd_grpc.sidecar.life import (
    Drain,
    Finish,
    Kill,
    Life,
    Phase,
    Register,
    Send,
    StartGrace,
    Withdraw,
    forwarded_signals,
    stop_signals,
)
from etcd_grpc.sidecar.probe import Advice

TERM, INT, QUIT, HUP, CONT = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGCONT,
)


def life() -> Life:
    return Life(has_program=True)


@pytest.mark.parametrize("number", [TERM, INT, QUIT])
def test_program_is_drained_then_told_by_the_same_signal_then_waited_for(number: int) -> None:
    machine = life()
    assert machine.advised(Advice.REGISTER) == [Register()]
    assert machine.signalled(number) == [Drain()]
    assert machine.drained() == [Send(CONT), Send(number), StartGrace()]
    assert machine.ended(3) == [Withdraw(), Finish(3)]
    assert machine.phase is Phase.ENDED


def test_probes_register_and_withdraw_only_while_nothing_ends() -> None:
    machine = life()
    assert machine.advised(Advice.NOTHING) == []
    assert machine.advised(Advice.REGISTER) == [Register()]
    assert machine.advised(Advice.WITHDRAW) == [Withdraw()]
    machine.signalled(TERM)
    for advice in Advice:
        assert machine.advised(advice) == []


def test_program_that_ends_by_itself_is_deleted_at_once_and_its_status_passed_on() -> None:
    machine = life()
    machine.advised(Advice.REGISTER)
    assert machine.ended(137) == [Withdraw(), Finish(137)]


def test_program_that_ends_while_it_drains_is_deleted_at_once() -> None:
    machine = life()
    machine.signalled(TERM)
    assert machine.ended(0) == [Withdraw(), Finish(0)]
    assert machine.drained() == []


def test_second_signal_kills_at_once() -> None:
    machine = life()
    machine.signalled(TERM)
    assert machine.signalled(TERM) == [Withdraw(), Kill()]
    assert machine.drained() == []
    assert machine.signalled(INT) == []
    assert machine.ended(137) == [Withdraw(), Finish(137)]


def test_second_signal_kills_what_is_being_waited_for() -> None:
    machine = life()
    machine.signalled(TERM)
    machine.drained()
    assert machine.signalled(INT) == [Withdraw(), Kill()]


def test_grace_that_is_over_kills() -> None:
    machine = life()
    machine.signalled(TERM)
    machine.drained()
    assert machine.grace_over() == [Kill()]
    assert machine.grace_over() == []


def test_grace_that_is_over_after_the_end_is_nothing() -> None:
    machine = life()
    machine.signalled(TERM)
    machine.drained()
    machine.ended(0)
    assert machine.grace_over() == []


@pytest.mark.parametrize("number", sorted(forwarded_signals()))
def test_other_signals_are_passed_on_in_every_phase_of_a_program(number: int) -> None:
    machine = life()
    assert machine.signalled(number) == [Send(number)]
    machine.signalled(TERM)
    assert machine.signalled(number) == [Send(number)]
    machine.drained()
    assert machine.signalled(number) == [Send(number)]
    assert machine.phase is Phase.STOPPING
    machine.ended(0)
    assert machine.signalled(number) == []


def test_program_that_is_never_well_is_ended_and_the_status_is_ours() -> None:
    machine = life()
    assert machine.advised(Advice.GIVE_UP) == [Withdraw(), Send(CONT), Send(TERM), StartGrace()]
    assert machine.advised(Advice.GIVE_UP) == []
    assert machine.ended(0) == [Withdraw(), Finish(1)]


def test_program_that_cannot_be_registered_is_ended_too() -> None:
    machine = life()
    machine.advised(Advice.REGISTER)
    assert machine.failed() == [Withdraw(), Send(CONT), Send(TERM), StartGrace()]
    assert machine.failed() == []
    assert machine.signalled(TERM) == [Withdraw(), Kill()]
    assert machine.ended(137) == [Withdraw(), Finish(1)]


@pytest.mark.parametrize("number", [TERM, INT, QUIT, HUP])
def test_without_a_program_nothing_is_sent_and_the_end_is_that_of_the_draining(number: int) -> None:
    machine = Life(has_program=False)
    machine.advised(Advice.REGISTER)
    assert machine.signalled(number) == [Drain()]
    assert machine.drained() == [Finish(0)]
    assert machine.phase is Phase.ENDED


def test_without_a_program_a_second_signal_ends_at_once() -> None:
    machine = Life(has_program=False)
    machine.signalled(TERM)
    assert machine.signalled(TERM) == [Withdraw(), Finish(0)]
    assert machine.drained() == []


def test_without_a_program_giving_up_is_our_status() -> None:
    machine = Life(has_program=False)
    assert machine.advised(Advice.GIVE_UP) == [Withdraw(), Finish(1)]


def test_no_signal_both_stops_and_is_passed_on() -> None:
    assert not stop_signals(has_program=True) & forwarded_signals()
    assert HUP in forwarded_signals()
    assert HUP in stop_signals(has_program=False)
