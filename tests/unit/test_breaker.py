"""The circuit breaker: when it refuses, when it tries, when it trusts again."""

import random

import hypothesis.strategies as st
import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from paceline.breaker import Breaker, BreakerState
from paceline.testing.virtual_time import VirtualClock

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN


def _opened(clock: VirtualClock, **options: float) -> Breaker:
    breaker = Breaker(clock, failures=1, wait_s=1.0, longest_wait_s=8.0, **options)  # type: ignore[arg-type]
    breaker.failed(breaker.admit())
    assert breaker.state is OPEN
    return breaker


def _fail_again(clock: VirtualClock, breaker: Breaker) -> float:
    """Seconds waited until the next probe, which fails too."""
    waited = breaker.remaining_ns()
    clock.advance(waited / 1e9)
    breaker.failed(breaker.admit())
    return waited / 1e9


def test_failures_in_a_row_open_it() -> None:
    """A success in between starts the count of failures anew; the last one in a row opens it."""
    breaker = Breaker(VirtualClock(), failures=3)
    for outcome in (breaker.failed, breaker.failed, breaker.succeeded, *[breaker.failed] * 2):
        outcome(breaker.admit())
        assert breaker.state is CLOSED
    breaker.failed(breaker.admit())
    assert breaker.state is OPEN
    assert breaker.admit() == 0


def test_a_rate_opens_it_once_the_window_is_full() -> None:
    """Half of the outcomes failing opens it though no two fail in a row, and not before the
    window is full."""
    breaker = Breaker(VirtualClock(), failures=100, rate=0.5, window=10)
    for number in range(10):
        assert breaker.state is CLOSED
        permit = breaker.admit()
        breaker.failed(permit) if number % 2 else breaker.succeeded(permit)
    assert breaker.state is OPEN


@pytest.mark.parametrize("probes", [1, 3])
def test_half_open_admits_exactly_its_probes(probes: int) -> None:
    """However often it is asked, a half-open breaker admits its probes and no more, and closes
    when all of them succeeded. (T31, D95)"""
    clock = VirtualClock()
    breaker = _opened(clock, probes=probes)
    clock.advance(0.999)
    assert breaker.admit() == 0
    clock.advance(0.001)
    permits = [breaker.admit() for _ in range(10)]
    assert [bool(p) for p in permits] == [True] * probes + [False] * (10 - probes)
    for permit in permits[:probes]:
        assert breaker.state is HALF_OPEN
        breaker.succeeded(permit)
    assert breaker.state is CLOSED


def test_a_failed_probe_opens_it_for_longer() -> None:
    """Waits double with every failed probe up to their limit. (D95)"""
    clock = VirtualClock()
    breaker = _opened(clock)
    assert [_fail_again(clock, breaker) for _ in range(6)] == [1, 2, 4, 8, 8, 8]


def test_answering_for_a_moment_does_not_shorten_the_wait() -> None:
    """What comes and goes is waited for longer and longer; what had held for the longest wait
    is tried again soon. (D92)"""
    clock = VirtualClock()
    breaker = _opened(clock)
    for expected, held in ((2, 0.0), (4, 1.0), (1, 8.0)):
        clock.advance(breaker.remaining_ns() / 1e9)
        breaker.succeeded(breaker.admit())
        clock.advance(held)
        breaker.failed(breaker.admit())
        assert breaker.remaining_ns() == expected * 1_000_000_000


def test_waits_are_spread() -> None:
    """With dice the waits of many differ, are reproducible, and never under half. (D95)"""

    def wait(seed: int) -> int:
        return _opened(VirtualClock(), dice=random.Random(seed)).remaining_ns()  # type: ignore[arg-type]

    waits = [wait(seed) for seed in range(50)]
    assert waits == [wait(seed) for seed in range(50)]
    assert len(set(waits)) == 50
    assert all(500_000_000 <= w <= 1_000_000_000 for w in waits)


def test_outcomes_of_before_say_nothing_about_now() -> None:
    """Calls admitted before it opened change nothing when they end during the probes."""
    clock = VirtualClock()
    breaker = Breaker(clock, failures=1, wait_s=1)
    slow, failing = breaker.admit(), breaker.admit()
    breaker.failed(failing)
    clock.advance(1)
    probe = breaker.admit()
    breaker.succeeded(slow)
    breaker.failed(slow)
    assert breaker.state is HALF_OPEN
    breaker.succeeded(probe)
    assert breaker.state is CLOSED


def test_a_probe_that_says_nothing_makes_place() -> None:
    """An abandoned probe is replaced at once, a lost one after the wait. (T31)"""
    clock = VirtualClock()
    breaker = _opened(clock)
    clock.advance(1)
    breaker.abandoned(breaker.admit())
    assert breaker.admit()
    assert not breaker.admit()
    clock.advance(1)
    permit = breaker.admit()
    assert permit
    breaker.succeeded(permit)
    assert breaker.state is CLOSED


def test_it_can_be_opened_at_once() -> None:
    """Who knows that the other side is gone need not wait for failures; saying it twice does not
    prolong the wait."""
    clock = VirtualClock()
    breaker = Breaker(clock, wait_s=1.0)
    breaker.trip()
    breaker.trip()
    assert breaker.remaining_ns() == 1_000_000_000


def test_senseless_bounds_are_refused() -> None:
    """No counts under one, no longest wait under the first."""
    for wrong in ({"failures": 0}, {"probes": 0}, {"window": 0}, {"wait_s": 0}, {"wait_s": 99}):
        with pytest.raises(ValueError, match="breaker"):
            Breaker(VirtualClock(), **wrong)  # type: ignore[arg-type]


class _Model(RuleBasedStateMachine):
    """Any order of calls: the promises hold."""

    make: type[Breaker] = Breaker

    @initialize(probes=st.integers(1, 3), failures=st.integers(1, 3))
    def start(self, probes: int, failures: int) -> None:
        self.clock = VirtualClock()
        self.probes = probes
        self.failures = failures
        self.in_a_row = 0
        self.out: list[int] = []
        self.round: list[int] = []  # permits of this half-open state
        self.breaker = self.make(
            self.clock, failures=failures, probes=probes, wait_s=1, longest_wait_s=4
        )

    @rule()
    def ask(self) -> None:
        before, remaining = self.breaker.state, self.breaker.remaining_ns()
        permit = self.breaker.admit()
        if before is CLOSED:
            assert permit
        elif remaining:
            assert not permit or before is HALF_OPEN
        if permit:
            self.out.append(permit)
            if self.breaker.state is HALF_OPEN:
                self.round = [p for p in self.round if p == permit] + [permit]
                assert len(self.round) <= self.probes

    @rule(data=st.data(), ok=st.booleans())
    def report(self, data: st.DataObject, ok: bool) -> None:
        if not self.out:
            return
        permit = data.draw(st.sampled_from(self.out))
        self.out.remove(permit)
        before = self.breaker.state
        current = self.breaker.admit() if before is CLOSED else 0
        (self.breaker.succeeded if ok else self.breaker.failed)(permit)
        after = self.breaker.state
        if before is CLOSED and permit == current:
            self.in_a_row = 0 if ok else self.in_a_row + 1
            assert (after is OPEN) == (self.in_a_row >= self.failures)
        elif before is OPEN or permit not in self.round:
            assert after is before
        if after is not CLOSED or before is not CLOSED:
            self.in_a_row = 0

    @precondition(lambda self: len(self.out) > 2)
    @rule()
    def trip(self) -> None:
        self.breaker.trip()
        self.in_a_row = 0
        assert self.breaker.state is OPEN

    @rule(seconds=st.sampled_from([0.5, 1.0, 4.0]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @invariant()
    def never_shut_for_longer_than_the_longest_wait(self) -> None:
        if hasattr(self, "breaker"):
            assert self.breaker.remaining_ns() <= 4_000_000_000


def _check(make: type[Breaker]) -> None:
    class Model(_Model):
        pass

    Model.make = make
    run_state_machine_as_test(
        Model,
        settings=settings(
            max_examples=200,
            stateful_step_count=25,
            deadline=None,
            database=None,
            derandomize=True,
            phases=(Phase.generate,),
        ),
    )


def test_the_promises_hold_in_any_order_of_calls() -> None:
    """Whatever is asked, reported and waited in whatever order: probes are bounded, old permits
    ignored, counts exact. (T31)"""
    _check(Breaker)


class _AdmitsOneMore(Breaker):  # type: ignore[misc]
    def admit(self) -> int:
        return super().admit() or (self._epoch if self._state is HALF_OPEN else 0)


class _BelievesOldPermits(Breaker):  # type: ignore[misc]
    def succeeded(self, permit: int) -> None:
        super().succeeded(self._epoch)


class _ForgetsSuccess(Breaker):  # type: ignore[misc]
    def succeeded(self, permit: int) -> None:
        if self._state is not CLOSED:
            super().succeeded(permit)


@pytest.mark.parametrize("bug", [_AdmitsOneMore, _BelievesOldPermits, _ForgetsSuccess])
def test_the_model_catches_seeded_bugs(bug: type[Breaker]) -> None:
    """A breaker that admits a probe too many, believes old permits, or counts failures that are
    not in a row fails."""
    with pytest.raises(AssertionError):
        _check(bug)
