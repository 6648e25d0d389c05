"""The sidecar's life, whatever happens in whatever order."""

from __future__ import annotations

import signal

from hypothesis import given
from hypothesis import strategies as st

from etcd_grpc.sidecar.life import (
    Drain,
    Effect,
    Finish,
    Kill,
    Life,
    Phase,
    Register,
    Send,
    Withdraw,
    stop_signals,
)
from etcd_grpc.sidecar.probe import Advice, ProbeMachine, ProbeRules

happenings = st.lists(
    st.sampled_from(list(Advice))
    | st.sampled_from([signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
    | st.sampled_from(["drained", "grace_over", "failed"]),
    max_size=30,
)


def tell(life: Life, happening: Advice | int | str) -> list[Effect]:
    if isinstance(happening, Advice):
        return life.advised(happening)
    if isinstance(happening, int):
        return life.signalled(happening)
    effects: list[Effect] = getattr(life, happening)()
    return effects


@given(happenings, st.booleans(), st.integers(0, 255))
def test_order_of_the_end_holds_whatever_happens(
    happened: list[Advice | int | str], has_program: bool, status: int
) -> None:
    life = Life(has_program=has_program)
    effects: list[Effect] = []
    for happening in happened:
        if life.phase is Phase.ENDED:
            assert tell(life, happening) == []
        effects += tell(life, happening)
    if has_program:
        effects += life.ended(status)

    finishes = [effect for effect in effects if isinstance(effect, Finish)]
    assert len(finishes) == (1 if has_program else life.phase is Phase.ENDED)
    left = [i for i, effect in enumerate(effects) if isinstance(effect, Drain | Finish)]
    if left:
        after = effects[left[0] :]
        assert not any(isinstance(effect, Register) for effect in after)
    for i, effect in enumerate(effects):
        told_to_stop = isinstance(effect, Send) and effect.number in stop_signals(has_program=True)
        if told_to_stop or isinstance(effect, Kill):
            assert any(isinstance(before, Drain | Withdraw) for before in effects[:i])
        if not has_program:
            assert not isinstance(effect, Send | Kill)
    assert sum(isinstance(effect, Kill) for effect in effects) <= 1
    assert sum(isinstance(effect, Drain) for effect in effects) <= 1


@given(
    st.lists(st.booleans(), max_size=60),
    st.integers(1, 5),
    st.integers(1, 5),
    st.sampled_from([0.0, 10.0, 1000.0]),
)
def test_advice_is_what_the_last_answers_say(
    answers: list[bool], failures: int, successes: int, start_timeout_s: float
) -> None:
    rules = ProbeRules(failures=failures, successes=successes, start_timeout_s=start_timeout_s)
    machine = ProbeMachine(rules, 0)
    well = ever = False
    for now, good in enumerate(answers):
        advice = machine.seen("" if good else "bad", now)
        enough = successes if good else failures
        turned = good != well and answers[max(0, now + 1 - enough) : now + 1] == [good] * enough
        if turned:
            well, ever = good, ever or good
            assert advice is (Advice.REGISTER if good else Advice.WITHDRAW)
        else:
            late = not ever and 0 < start_timeout_s <= now
            assert advice is (Advice.GIVE_UP if late else Advice.NOTHING)
        assert machine.well is well
