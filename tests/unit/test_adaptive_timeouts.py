"""Time limits that follow what a rule's commands took."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.hostexec.timeouts import AdaptiveTimeouts


def _after(*durations_s: float) -> AdaptiveTimeouts:
    timeouts = AdaptiveTimeouts(15, 30)
    for seconds in durations_s:
        timeouts.observe("rule", seconds)
    return timeouts


def test_the_first_limits_hold_until_enough_was_seen() -> None:
    """Up to the twentieth observation a limit is 15 s, or 30 s for slow rules. (S1-20)"""
    timeouts = _after(*[5.0] * 19)
    assert timeouts.limit_s("rule", slow=False) == 15
    assert timeouts.limit_s("rule", slow=True) == 30
    timeouts.observe("rule", 5.0)
    assert timeouts.limit_s("rule", slow=False) == 20
    assert timeouts.limit_s("other", slow=False) == 15


@given(st.lists(st.floats(0, 1e6), min_size=20, max_size=300))
def test_a_learnt_limit_is_four_times_the_p99_within_bounds(seconds: list[float]) -> None:
    """From twenty observations on a limit is four times the nearest-rank p99 of the last 128,
    between the first limit and 300 s. (S1-20)"""
    window = sorted(seconds[-128:])
    p99 = window[math.ceil(0.99 * len(window)) - 1]
    assert _after(*seconds).limit_s("rule", slow=False) == min(max(4 * p99, 15), 300)
    assert _after(*seconds).limit_s("rule", slow=True) == min(max(4 * p99, 30), 300)


def test_a_request_only_shortens() -> None:
    """What a caller asks for holds where it is shorter than the limit. (X-14)"""
    timeouts = _after()
    assert timeouts.limit_s("rule", slow=False, asked_s=2.5) == 2.5
    assert timeouts.limit_s("rule", slow=False, asked_s=99) == 15


def test_short_runs_take_no_time_away() -> None:
    """However short the runs of a rule were, the next has its first limit: a copy of much is not
    stopped half done because twenty copies of little were fast. (S1-20)"""
    assert _after(*[0.01] * 50).limit_s("rule", slow=False) == 15
    assert _after(*[0.01] * 50).limit_s("rule", slow=True) == 30


def test_a_first_limit_above_all_that_is_learnt_holds() -> None:
    """A first limit that is set higher than the highest learnt one is not lowered. (S1-20)"""
    timeouts = AdaptiveTimeouts(600, 900)
    for _ in range(20):
        timeouts.observe("rule", 1e6)
    assert timeouts.limit_s("rule", slow=False) == 600


def test_a_learner_that_keeps_no_bounds_is_caught() -> None:
    """The law above fails for limits that follow observations without a floor."""

    class NoFloor(AdaptiveTimeouts):  # type: ignore[misc]
        def limit_s(self, rule: str, *, slow: bool, asked_s: float | None = None) -> float:
            return 4 * (self._seen[rule].quantile(1.0) or 0.0)

    timeouts = NoFloor(15, 30)
    for _ in range(20):
        timeouts.observe("rule", 0.001)
    with pytest.raises(AssertionError):
        assert timeouts.limit_s("rule", slow=False) >= 15
