"""What one turn may use, and what it is told when that is too much."""

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from paceline.call import Tokens
from paceline.engine.limits import TurnBudget
from paceline.engine.states import ResourceLimits
from paceline.errors import BudgetExceededError, Category
from paceline.testing.virtual_time import VirtualClock


def budget(
    clock: VirtualClock | None = None, timeout_s: float | None = None, **o: Any
) -> TurnBudget:
    """A turn that begins now, with these limits and no others but the time."""
    return TurnBudget(
        ResourceLimits(**{"max_steps": 0, **o}), clock or VirtualClock(), timeout_s=timeout_s
    )


@given(limit=st.integers(1, 9), asked=st.lists(st.integers(1, 4), max_size=12))
@pytest.mark.parametrize("what", ["steps", "calls"])
def test_as_many_as_allowed_and_not_one_more(what: str, limit: int, asked: list[int]) -> None:
    """Steps and tool calls are counted up to their limit; what is refused is not counted, and the
    error names the limit. (V-37)"""
    name = {"steps": "max_steps", "calls": "max_tool_calls"}[what]
    limits: dict[str, Any] = {name: limit}
    turn, count = budget(**limits), 0
    for number in asked:
        if count + number <= limit:
            turn.spend(**{what: number})
            count += number
        else:
            with pytest.raises(BudgetExceededError, match=f"reached {name} = {limit}, ") as refused:
                turn.spend(**{what: number})
            assert refused.value.budget == name
        assert getattr(turn, what) == count


def test_without_limits_everything_goes() -> None:
    """A limit of 0 is none. (V-37)"""
    turn = budget()
    turn.spend(steps=10_000, calls=10_000)
    turn.note(Tokens(10**9, 10**9), 10.0**6)
    turn.spend(steps=1, calls=1)
    assert (turn.steps, turn.calls) == (10_001, 10_001)


def test_the_limits_of_before_hold_by_default() -> None:
    """If nobody says otherwise, a turn has 300 s and any number of tool calls. (V-37)"""
    clock = VirtualClock()
    turn = TurnBudget(ResourceLimits(), clock)
    turn.spend(calls=100_000)
    assert turn.left_s() == 300.0


def test_tokens_and_money_end_a_turn_after_the_answer_that_reached_them() -> None:
    """The answer that reaches the limit of tokens, or of dollars, counts; nothing is asked for
    after it. (V-37)"""
    for limit, name in (
        ({"max_turn_tokens": 100}, "max_turn_tokens"),
        ({"max_turn_usd": 0.3}, "max_turn_usd"),
    ):
        turn = budget(**limit)
        for _ in range(3):  # 0.1 dollars three times are a little more than 0.3, or less
            turn.spend(steps=1)
            turn.note(Tokens(20, 14), 0.1)
        with pytest.raises(BudgetExceededError, match=name) as refused:
            turn.spend(steps=1)
        assert (refused.value.budget, turn.steps) == (name, 3)


def test_fractions_of_a_cent_end_a_turn_in_time() -> None:
    """Dollars that add up to the limit reach it, though sums of fractions are not exact. (V-37)"""
    turn = budget(max_turn_usd=0.8)
    for cost_usd in (0.1, 0.7):
        turn.spend(steps=1)
        turn.note(None, cost_usd)
    assert turn.cost_usd is not None
    assert turn.cost_usd < 0.8
    with pytest.raises(BudgetExceededError, match="max_turn_usd"):
        turn.spend(steps=1)


def test_what_nobody_knows_is_not_made_up() -> None:
    """Tokens and dollars stay unknown until an answer says them, and are then added up. (V-37)"""
    turn = budget(max_turn_tokens=1, max_turn_usd=1e-6)
    turn.note(None, None)
    turn.spend(steps=1)
    assert (turn.tokens, turn.cost_usd) == (None, None)
    turn.note(Tokens(1, 2), None)
    turn.note(Tokens(3, 4), 0.5)
    turn.note(None, 0.25)
    assert (turn.tokens, turn.cost_usd) == (Tokens(4, 6), 0.75)


def test_time_runs_out() -> None:
    """A turn that has had its time asks for nothing more, and knows how much is left. (V-37)"""
    clock = VirtualClock()
    turn = budget(clock, max_execution_s=10.0)
    clock.advance(9.5)
    turn.spend(steps=1)
    assert turn.left_s() == 0.5
    clock.advance(0.5)
    with pytest.raises(BudgetExceededError, match="max_execution_s = 10") as refused:
        turn.spend(steps=1)
    assert (refused.value.budget, turn.left_s()) == ("max_execution_s", 0.0)
    clock.advance(5)
    assert turn.left_s() == 0.0


@pytest.mark.parametrize(
    ("timeout_s", "limit"), [(4.0, "timeout_s"), (10.0, "timeout_s"), (11.0, "max_execution_s")]
)
def test_the_nearer_of_two_deadlines_counts(timeout_s: float, limit: str) -> None:
    """What a caller waits at most ends a turn before its own limit, never after it. (V-37)"""
    clock = VirtualClock()
    turn = budget(clock, timeout_s=timeout_s, max_execution_s=10.0)
    assert turn.deadline_ns == clock.monotonic_ns() + round(min(timeout_s, 10) * 1e9)
    clock.advance(min(timeout_s, 10))
    with pytest.raises(BudgetExceededError) as refused:
        turn.spend(steps=1)
    assert refused.value.budget == limit


def test_the_time_that_a_person_takes_is_not_the_turns() -> None:
    """A turn that waited for somebody has so much longer, but no longer than its caller
    waits. (V-37)"""
    clock = VirtualClock()
    turn = budget(clock, timeout_s=15.0, max_execution_s=10.0)
    clock.advance(3)
    turn.extend(3_000_000_000)
    assert turn.left_s() == 10.0
    turn.extend(60_000_000_000)
    assert turn.left_s() == 12.0


def test_the_error_tells_what_was_used() -> None:
    """The error of a limit says how far the turn came, and what to do. (V-37)"""
    clock = VirtualClock()
    turn = budget(clock, max_steps=2)
    turn.spend(steps=2, calls=5)
    turn.note(Tokens(70, 5), 0.01)
    clock.advance(1.5)
    with pytest.raises(BudgetExceededError) as refused:
        turn.spend(steps=1)
    error = refused.value
    assert str(error) == (
        "the turn reached max_steps = 2, after 2 steps, 5 tool calls, 1.5 s, 75 tokens, 0.0100 USD"
    )
    assert (error.category, error.may_have_started) == (Category.EXHAUSTED, True)
    assert "ResourceLimits" in error.next_step
