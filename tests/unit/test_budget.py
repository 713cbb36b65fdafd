"""Budgets: what they say of one more call, and when they begin anew."""

import tomllib
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.balance.budget import (
    Amount,
    Budget,
    Verdict,
    budgets_of,
    nano_usd,
    span_of,
    usd,
)
from paceline.errors import ConfigError
from paceline.settings import BudgetSettings

USD = 1_000_000_000
AMOUNTS = st.builds(Amount, st.integers(0, 10**12), st.integers(0, 10**9))
LIMITS = st.none() | st.integers(0, 10**12)
BUDGETS = st.builds(Budget, st.just("b"), LIMITS, LIMITS, warn_at=st.floats(0.01, 1))


def at_ns(*moment: int) -> int:
    return int(datetime(*moment, tzinfo=UTC).timestamp()) * USD  # type: ignore[misc, arg-type]


def test_a_budget_is_used_up_at_its_limit() -> None:
    """Less than the limit leaves room for one more call, the limit does not. (S0-26, V-40)"""
    budget = Budget("b", 10 * USD, warn_at=0.8)
    assert budget.check(Amount()) is Verdict.FREE
    assert budget.check(Amount(8 * USD - 1)) is Verdict.FREE
    assert budget.check(Amount(8 * USD)) is Verdict.LOW
    assert budget.check(Amount(10 * USD - 1)) is Verdict.LOW
    assert budget.check(Amount(10 * USD)) is Verdict.USED_UP
    assert budget.check(Amount(0, 10**9)) is Verdict.FREE


def test_what_a_call_will_cost_has_to_fit() -> None:
    """A call whose price is known is refused if it would exceed the limit, not if it reaches it.
    (S0-26)"""
    budget = Budget("b", 10 * USD)
    assert budget.check(Amount(7 * USD), Amount(3 * USD)) is not Verdict.USED_UP
    assert budget.check(Amount(7 * USD), Amount(3 * USD + 1)) is Verdict.USED_UP


def test_the_nearer_of_two_limits_counts() -> None:
    """With limits in money and in tokens, either ends the budget. (S0-26)"""
    budget = Budget("b", 10 * USD, 1_000)
    assert budget.check(Amount(0, 1_000)) is Verdict.USED_UP
    assert budget.check(Amount(10 * USD, 0)) is Verdict.USED_UP
    assert budget.share(Amount(5 * USD, 900)) == 0.9
    assert Budget("b").share(Amount(5, 5)) == 0
    assert Budget("b", 0).share(Amount()) == 1


@given(BUDGETS, AMOUNTS, AMOUNTS, AMOUNTS)
def test_spending_more_frees_nothing(
    budget: Budget, spent: Amount, more: Amount, expected: Amount
) -> None:
    """A budget that is low or used up is no less so after more was spent. (S0-26)"""
    order = list(Verdict)
    after = Amount(spent.nano_usd + more.nano_usd, spent.tokens + more.tokens)
    before, then = budget.check(spent, expected), budget.check(after, expected)
    assert order.index(then) >= order.index(before)
    assert budget.share(after) >= budget.share(spent)


def test_budgets_are_for_the_agents_they_name() -> None:
    """Patterns say whose calls count; without any all do. (S0-26)"""
    budget = Budget("b", 1, agents=("research*", "plan?"))
    assert [budget.covers(name) for name in ("research_web", "plan1", "plan", "echo")] == [
        True, True, False, False,
    ]  # fmt: skip
    assert Budget("b", 1).covers("echo")


def test_days_and_months_are_those_of_utc() -> None:
    """A day ends at midnight and a month with its last day, in UTC. (S0-26)"""
    moment = at_ns(2028, 2, 29, 23, 59, 59) + 999_999_999
    assert span_of("day", moment) == (at_ns(2028, 2, 29), at_ns(2028, 3, 1))
    assert span_of("month", moment) == (at_ns(2028, 2, 1), at_ns(2028, 3, 1))
    assert span_of("day", moment + 1) == (at_ns(2028, 3, 1), at_ns(2028, 3, 2))
    assert span_of("month", at_ns(2026, 12, 31)) == (at_ns(2026, 12, 1), at_ns(2027, 1, 1))


@given(st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1)), st.sampled_from(["day", "month"]))  # noqa: DTZ001 (hypothesis wants naive ones)
def test_windows_follow_each_other(moment: datetime, window: str) -> None:
    """Each moment is in one window, which ends where the next begins. (S0-26)"""
    wall_ns = int(moment.replace(tzinfo=UTC).timestamp() * USD)
    span = span_of(window, wall_ns)  # type: ignore[arg-type]
    assert span.start_ns <= wall_ns < span.end_ns
    assert span_of(window, span.end_ns).start_ns == span.end_ns  # type: ignore[arg-type]
    assert span_of(window, span.start_ns) == span  # type: ignore[arg-type]


def test_budgets_are_read_from_a_file() -> None:
    """A budget is a table with a name; limits are exact. (S0-26)"""
    text = """
    [budgets.team]
    limit_usd = 20.1
    [budgets.each]
    limit_tokens = 5
    window = "month"
    per = "user"
    agents = ["a*"]
    warn_at = 0.5
    """
    read = msgspec.convert(tomllib.loads(text)["budgets"], dict[str, BudgetSettings])
    assert budgets_of(read) == (
        Budget("team", 20_100_000_000),
        Budget("each", None, 5, "month", "user", ("a*",), 0.5),
    )
    assert usd(nano_usd(20.1)) == 20.1


def test_a_budget_without_a_limit_is_refused() -> None:
    """A budget that limits nothing is a mistake. (S0-26)"""
    with pytest.raises(ConfigError, match=r"budgets\.team has no limit"):
        budgets_of({"team": BudgetSettings()})


@pytest.mark.parametrize("wrong", ["limit_usd = -1", "limit_usd = nan", 'per = "x"', "warn_at = 0"])
def test_wrong_budgets_are_refused(wrong: str) -> None:
    """A limit or window that cannot be is an error. (S0-26)"""
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(tomllib.loads(wrong), BudgetSettings)
