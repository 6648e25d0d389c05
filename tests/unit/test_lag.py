"""When an event loop lags so much that its instance leaves, and when it comes back."""

from __future__ import annotations

from etcd_grpc.server.lag import LagJudge
from etcd_grpc.server.lifecycle import Event


def judged(judge: LagJudge, *beats: tuple[float, float]) -> list[Event | None]:
    """The verdicts on beats of (lag, time)."""
    return [judge.judge(lag_s, now) for lag_s, now in beats]


def test_a_lag_up_to_the_bound_is_none() -> None:
    assert judged(LagJudge(1.0), (0.0, 0), (0.9, 1), (1.0, 2)) == [None, None, None]


def test_one_late_beat_is_enough_and_told_once() -> None:
    assert judged(LagJudge(1.0), (1.1, 0), (1.4, 0.3), (5.0, 1)) == [Event.LAGGED, None, None]


def test_it_recovers_after_a_calm_time() -> None:
    judge = LagJudge(1.0)
    assert judged(judge, (2.0, 0), (0.1, 1), (0.1, 2), (0.1, 2.9)) == [Event.LAGGED, None, None, None]
    assert judged(judge, (0.1, 3)) == [Event.RECOVERED]
    assert not judge.lagging


def test_half_of_the_bound_is_not_calm() -> None:
    judge = LagJudge(1.0)
    assert judged(judge, (2.0, 0), (0.1, 1), (0.6, 2), (0.1, 3), (0.1, 4.9))[1:] == [None] * 4
    assert judged(judge, (0.1, 5)) == [Event.RECOVERED]


def test_a_small_bound_still_takes_a_second_of_calm() -> None:
    judge = LagJudge(0.05)
    assert judged(judge, (0.06, 0), (0.0, 0.1), (0.0, 1.0)) == [Event.LAGGED, None, None]
    assert judged(judge, (0.0, 1.1)) == [Event.RECOVERED]


def test_it_can_lag_again() -> None:
    judge = LagJudge(1.0)
    judged(judge, (2.0, 0), (0.0, 1), (0.0, 3))
    assert judged(judge, (2.0, 4)) == [Event.LAGGED]
