"""When a program is well, by the answers of probes."""

from __future__ import annotations

from typing import Any

import pytest

from etcd_grpc.errors import ConfigurationError
from etcd_grpc.sidecar.probe import Advice, ProbeMachine, ProbeRules

BAD = "refused"


def advices(answers: str, **rules: Any) -> str:
    """Play "+" (good) and "-" (bad) answers, one a second; tell the advice after each.

    R: register, W: withdraw, G: give up, a dot: nothing.
    """
    machine = ProbeMachine(ProbeRules(**rules), 0)
    letters = {
        Advice.NOTHING: ".",
        Advice.REGISTER: "R",
        Advice.WITHDRAW: "W",
        Advice.GIVE_UP: "G",
    }
    return "".join(
        letters[machine.seen("" if answer == "+" else BAD, now)]
        for now, answer in enumerate(answers, start=1)
    )


@pytest.mark.parametrize(
    ("answers", "advice"),
    [
        ("--++++", "..R..."),
        ("+---", "R..W"),
        ("+--+--+---", "R........W"),
        ("+---+", "R..WR"),
        ("+------+---", "R..W...R..W"),
    ],
)
def test_three_bad_answers_in_a_row_withdraw_and_one_good_one_registers(
    answers: str, advice: str
) -> None:
    assert advices(answers) == advice


@pytest.mark.parametrize(
    ("answers", "advice"), [("++", ".R"), ("+-++", "...R"), ("++-", ".RW"), ("++-+-++", ".RW...R")]
)
def test_thresholds_are_the_users(answers: str, advice: str) -> None:
    assert advices(answers, successes=2, failures=1) == advice


@pytest.mark.parametrize(
    ("answers", "advice"),
    [
        ("---", "..G"),
        ("-----", "..GGG"),
        ("--+--------", "..R..W....."),  # it was well in time: it is never given up
    ],
)
def test_program_that_is_never_well_is_given_up(answers: str, advice: str) -> None:
    assert advices(answers, start_timeout_s=3) == advice


def test_without_a_limit_nothing_is_given_up() -> None:
    assert advices("-" * 1000, start_timeout_s=0) == "." * 1000


def test_good_answer_that_is_not_yet_enough_does_not_stop_the_clock() -> None:
    assert advices("+-+-+-", successes=2, start_timeout_s=5) == "....GG"


def test_starting_program_is_looked_at_often_until_it_is_well_for_the_first_time() -> None:
    machine = ProbeMachine(ProbeRules(interval_s=5, failures=1), 0)
    assert machine.interval_s < 1
    machine.seen("", 1)
    assert machine.interval_s == 5
    machine.seen(BAD, 6)
    assert machine.interval_s == 5


def test_short_interval_is_kept_at_the_start() -> None:
    assert ProbeMachine(ProbeRules(interval_s=0.02), 0).interval_s == 0.02


@pytest.mark.parametrize(
    "wrong",
    [
        {"interval_s": 0},
        {"interval_s": float("nan")},
        {"timeout_s": -1},
        {"failures": 0},
        {"successes": 0},
        {"start_timeout_s": -1},
        {"start_timeout_s": float("inf")},
    ],
)
def test_rules_that_make_no_sense_are_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        ProbeRules(**wrong)
