"""Durations of the past, and what they decide: time limits and second requests."""

import math

import hypothesis.strategies as st
import pytest
from hypothesis import given

from paceline.balance.durations import Durations
from paceline.balance.hedging import Hedging

SECONDS = st.lists(st.floats(0, 1e4), min_size=20, max_size=300)


def _after(*seconds: float) -> Durations:
    durations = Durations()
    for one in seconds:
        durations.observe(one)
    return durations


@given(SECONDS, st.floats(0.01, 1))
def test_a_quantile_is_the_nearest_rank_of_the_last(seconds: list[float], share: float) -> None:
    """Asked once, a quantile is exactly that of the last 128 observations. (S1-20)"""
    window = sorted(seconds[-128:])
    assert _after(*seconds).quantile(share) == window[math.ceil(share * len(window)) - 1]


@given(SECONDS)
def test_a_quantile_that_lags_is_of_the_recent_past(seconds: list[float]) -> None:
    """Asked after every observation, it is that of a window at most 15 observations ago. (S1-20)"""
    durations = Durations()
    for number, one in enumerate(seconds, 1):
        durations.observe(one)
        told = durations.quantile(0.95)
        if number < 20:
            assert told is None
            continue
        windows = (
            sorted(seconds[max(0, n - 128) : n]) for n in range(max(20, number - 15), number + 1)
        )
        assert told in {w[math.ceil(0.95 * len(w)) - 1] for w in windows}


def test_a_limit_follows_the_p99_between_its_bounds() -> None:
    """A learnt limit is four times the p99, never under the floor or over the ceiling, and the
    ceiling until twenty are known. (S1-20, V-30)"""
    assert _after(*[2.0] * 19).limit_s(shortest=1, longest=60) == 60
    assert _after(*[2.0] * 19).limit_s(shortest=1, longest=60, first=15) == 15
    assert _after(*[2.0] * 20).limit_s(shortest=1, longest=60) == 8
    assert _after(*[0.01] * 20).limit_s(shortest=1, longest=60) == 1
    assert _after(*[50.0] * 20).limit_s(shortest=1, longest=60) == 60


def test_a_limit_follows_down_and_up_again() -> None:
    """Limits tighten when executions get quicker, and loosen when they get slower. (V-30)"""
    durations = _after(*[10.0] * 128)
    assert durations.limit_s(shortest=1, longest=60) == 40
    for _ in range(128):
        durations.observe(0.5)
    assert durations.limit_s(shortest=1, longest=60) == 2
    for _ in range(16):
        durations.observe(3.0)
    assert durations.limit_s(shortest=1, longest=60) == 12


def test_a_second_request_waits_for_the_p95() -> None:
    """Nothing is asked twice before a tenth more than what 95 % took has passed, nor while little
    is known. (S0-68)"""
    assert Hedging(_after(*[1.0] * 19)).delay_s() is None
    seconds = [float(n) for n in range(1, 101)]
    assert Hedging(_after(*seconds)).delay_s() == pytest.approx(104.5)


@given(st.lists(st.booleans(), max_size=400), st.floats(0, 0.5))
def test_second_requests_stay_within_their_share(slow: list[bool], share: float) -> None:
    """However many are slow, second requests are at most their share and ten. (S0-68)"""
    hedging = Hedging(_after(*[1.0] * 20), share)
    second = 0
    for one in slow:
        hedging.delay_s()
        second += one and hedging.spend()
    assert second <= share * len(slow) + 10
