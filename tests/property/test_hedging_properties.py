"""Whatever happens to its attempts, a hedged call ends once, and as gRFC A6 says."""

from __future__ import annotations

import grpc
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from etcd_grpc.balancer.service_config import HedgingPolicy, Throttling
from etcd_grpc.channel.hedging import Hedging, Step
from etcd_grpc.channel.retry import Throttle

NON_FATAL = grpc.StatusCode.UNAVAILABLE
FATAL = grpc.StatusCode.INVALID_ARGUMENT


class HedgedCalls(RuleBasedStateMachine):
    """One call: endpoints are found or not, attempts fail or answer, time passes, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.began = False

    @precondition(lambda self: not self.began)
    @rule(
        attempts=st.integers(2, 5),
        delay=st.sampled_from([0.0, 1.0, 3.0]),
        tokens=st.sampled_from([None, 2.0, 4.0, 100.0]),
        deadline=st.sampled_from([None, 0.0, 5.0, 50.0]),
    )
    def begin(self, attempts: int, delay: float, tokens: float | None, deadline: float | None) -> None:
        self.began = True
        self.now = 0.0
        self.attempts, self.delay, self.deadline = attempts, delay, deadline
        self.throttle = None if tokens is None else Throttle(Throttling(tokens, 0.5))
        self.machine = Hedging(
            HedgingPolicy(attempts, delay, frozenset({NON_FATAL})), self.throttle, deadline
        )
        self.placing: set[int] = set()
        self.under_way: set[int] = set()
        self.left_at = 0.0  # when the last attempt left
        self.counted = 0
        self.transparent = 0
        self.failures = 0
        self.not_before = 0.0
        self.refused = False
        self.final: int | None = None
        self.wake: float | None = None
        self.do(self.machine.begin())

    def do(self, step: Step, *, hurried: bool = False, replaces: bool = False) -> None:
        """What a driver does; checks what it is told."""
        assert self.final is None or step == Step(), "nothing follows the end"
        for start in step.starts:
            if replaces:
                self.transparent += 1
            else:
                self.counted += 1
                if self.counted > 1:
                    assert not self.refused, "a server has asked for no more"
                    assert self.now >= self.not_before, "a server has asked to wait"
                    assert hurried or self.now >= self.left_at + self.delay, "not before its time"
                    assert self.throttle is None or self.throttle.allows(), "too few tokens"
                assert start.previous == self.counted - 1
            assert self.counted == 1 or self.deadline is None or self.now < self.deadline
            assert not replaces or self.deadline is None or self.now < self.deadline
            self.placing.add(start.number)
        self.wake = step.wake_s
        if step.final is not None:
            self.final = step.final
            assert set(step.cancel) == self.under_way - {step.final}, "the losers, all of them"
            assert not step.starts

    @precondition(lambda self: self.began and self.placing)
    @rule(data=st.data())
    def find(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.placing)))
        self.placing.discard(number)
        if self.final is not None:
            assert self.machine.started(number, self.now) == Step(cancel=(number,))
            return
        self.under_way.add(number)
        self.left_at = self.now
        self.do(self.machine.started(number, self.now))

    @precondition(lambda self: self.began and self.placing)
    @rule(data=st.data())
    def miss(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.placing)))
        self.placing.discard(number)
        self.do(self.machine.nowhere(number))

    @precondition(lambda self: self.began and self.under_way)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.under_way)))
        over = self.final is not None
        self.do(self.machine.answered(number))
        self.under_way.discard(number)
        assert over or self.final == number, "the first answer counts"

    @precondition(lambda self: self.began and self.under_way)
    @rule(
        data=st.data(),
        code=st.sampled_from([NON_FATAL, NON_FATAL, FATAL]),
        pushback=st.sampled_from([None, None, -1, 0, 4000]),
        unseen=st.sampled_from([False, False, False, True]),
    )
    def fail(
        self, data: st.DataObject, code: grpc.StatusCode, pushback: int | None, unseen: bool
    ) -> None:
        number = data.draw(st.sampled_from(sorted(self.under_way)))
        self.under_way.discard(number)
        over = self.final is not None
        in_time = self.deadline is None or self.now < self.deadline
        replaced = unseen and in_time and self.transparent < 20
        if not over and not replaced and pushback is not None:
            self.refused |= pushback < 0
            self.not_before = max(self.not_before, self.now + pushback / 1000)
        step = self.machine.failed(number, code, pushback, self.now, unseen=unseen)
        self.do(step, hurried=True, replaces=replaced and not over)
        if not over and not replaced and code is FATAL:
            assert self.final == number, "a fatal code ends it"

    @precondition(lambda self: self.began)
    @rule(seconds=st.sampled_from([0.0, 0.4, 1.0, 3.0, 20.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.do(self.machine.tick(self.now))

    @invariant()
    def bounded(self) -> None:
        if self.began:
            assert self.counted <= self.attempts
            assert self.transparent <= 20

    @invariant()
    def never_stuck(self) -> None:
        if self.began and self.final is None:
            assert self.placing or self.under_way or self.wake is not None


TestHedgedCalls = HedgedCalls.TestCase
