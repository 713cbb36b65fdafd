"""What is done about trouble."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.engine.recovery import (
    Degrade,
    GiveUp,
    Recovery,
    Retry,
    Shorten,
    recovery,
    trigger_of,
    trouble_of,
)
from paceline.engine.states import AgentState, TransitionTrigger, Trouble
from paceline.errors import (
    AgentError,
    BudgetExceededError,
    CallError,
    CallTimeoutError,
    Category,
    OverloadedError,
    PacelineError,
)

HERE = AgentState.PROCESSING_PROMPT


def decided(
    error: PacelineError, *, attempt: int = 1, most: int = 3, left_s: float = 300.0, seed: int = 0
) -> Recovery:
    return recovery(
        trouble_of(error, HERE, attempt),
        most=most,
        left_s=left_s,
        retry_after_s=error.retry_after_s,
        rng=random.Random(seed),
    )


def limited(retry_after_s: float | None = None) -> CallError:
    return CallError("slow down", category=Category.RATE_LIMIT, retry_after_s=retry_after_s)


@given(st.integers(1, 3), st.integers())
def test_a_rate_limit_is_waited_for_five_seconds_at_least(attempt: int, seed: int) -> None:
    """Without a wish of the other side, the pause after a rate limit is drawn between 5 s and a
    bound that doubles with each attempt (S2-54)."""
    step = decided(limited(), attempt=attempt, seed=seed)
    assert isinstance(step, Retry)
    assert 5.0 <= step.after_s <= 5.0 * 2**attempt


def test_pauses_are_spread() -> None:
    """Sessions that were refused together do not come back together (S2-54)."""
    steps = {repr(decided(limited(), seed=seed)) for seed in range(50)}
    told = {repr(decided(limited(7.0), seed=seed)) for seed in range(50)}
    assert len(steps) == len(told) == 50


@given(st.floats(0, 200), st.integers())
def test_the_wish_of_the_other_side_is_granted(wish_s: float, seed: int) -> None:
    """The pause is never shorter than Retry-After, and a tenth longer at most (S2-54)."""
    step = decided(limited(wish_s), seed=seed)
    assert isinstance(step, Retry)
    assert wish_s <= step.after_s <= wish_s * 1.1


@given(st.sampled_from(Category), st.none() | st.floats(0, 1e6), st.floats(0, 1e4), st.integers())
def test_no_pause_outlasts_the_turn(
    category: Category, wish_s: float | None, left_s: float, seed: int
) -> None:
    """Whatever happened, a pause ends before the turn's time does (S2-54, S2-21)."""
    error = CallError("trouble", category=category, retry_after_s=wish_s)
    step = decided(error, left_s=left_s, seed=seed)
    assert not isinstance(step, Retry) or step.after_s < left_s


@given(st.sampled_from(Category), st.integers(0, 2_000), st.integers(0, 5_000))
def test_attempts_are_limited(category: Category, most: int, attempt: int) -> None:
    """No kind of trouble is recovered from more often than the limit says (S2-33)."""
    error = CallError("trouble", category=category)
    step = decided(error, most=most, attempt=attempt, left_s=1e9)
    assert attempt <= most or isinstance(step, GiveUp)


@pytest.mark.parametrize(
    "error",
    [
        AgentError("a bug"),
        CallError("no key", category=Category.AUTHENTICATION),
        CallError("too long", category=Category.INVALID),
        BudgetExceededError("too much", budget="max_steps"),
        OverloadedError("full"),
    ],
)
def test_what_does_not_pass_by_itself_is_given_up(error: PacelineError) -> None:
    """An error that trying again would not help is left to the caller at once (S2-33)."""
    assert isinstance(decided(error), GiveUp)


def test_a_time_out_is_tried_again_at_once() -> None:
    """A model that took too long is asked again without a pause (S2-52)."""
    assert decided(CallTimeoutError("late")) == Retry(0.0)


def test_an_overload_with_a_known_end_is_waited_for() -> None:
    """Who is told when there is room again comes back then (S2-54)."""
    step = decided(OverloadedError("full", retry_after_s=2.0))
    assert isinstance(step, Retry)
    assert 2.0 <= step.after_s <= 2.2


def test_short_memory_is_met_by_doing_less() -> None:
    """A machine that runs short makes the session shed and do less, and go on (S2-53)."""
    trouble = Trouble(Category.EXHAUSTED, "memory", retryable=True, origin=HERE)
    rng = random.Random(0)
    assert recovery(trouble, most=3, left_s=1.0, retry_after_s=None, rng=rng) == Degrade()


def test_what_is_too_long_is_shortened_once() -> None:
    """A model that cannot read all it is shown is shown less, once: what is too long even then is
    given up (S2-33, S2-42)."""
    rng = random.Random(0)
    error = CallError("too long", category=Category.TOO_LONG)
    steps = [
        recovery(trouble_of(error, HERE, attempt), most=3, left_s=9.0, retry_after_s=None, rng=rng)
        for attempt in (1, 2)
    ]
    assert steps == [Shorten(), GiveUp("it was shortened already")]


@pytest.mark.parametrize("category", Category)
def test_every_kind_of_error_has_its_trigger(category: Category) -> None:
    """Rate limits, time-outs and shortages have triggers of their own, all else is an internal
    error (S2-33, S2-14)."""
    own = {
        Category.RATE_LIMIT: TransitionTrigger.RATE_LIMIT,
        Category.TIMEOUT: TransitionTrigger.TIMEOUT,
        Category.EXHAUSTED: TransitionTrigger.RESOURCE_LIMIT,
        Category.TOO_LONG: TransitionTrigger.RESOURCE_LIMIT,
    }
    assert trigger_of(category) is own.get(category, TransitionTrigger.INTERNAL_ERROR)


def test_trouble_names_where_it_came_from() -> None:
    """Trouble has the error's kind and words, the state it came from, and its number (S2-04)."""
    error = CallError("gone", category=Category.UNAVAILABLE)
    expected = Trouble(Category.UNAVAILABLE, "gone", retryable=True, origin=HERE, attempt=2)
    assert trouble_of(error, HERE, 2) == expected
