"""Whether and when a call is executed again."""

import random
from typing import final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.balance.retry import RetryPolicy
from paceline.call import Effect, EffectKind
from paceline.errors import Category, PacelineError
from paceline.settings import RunSettings

EFFECTS = st.builds(Effect, st.sampled_from(EffectKind))
TRANSIENT = sorted(c for c in Category if c.transient)
# Executions at most, and the bound in seconds of the first pause and of any.
ALL = 99
LIMITS = {
    Category.NETWORK: (ALL, 0.2, 10.0),
    Category.TIMEOUT: (2, 0.5, 15.0),
    Category.RATE_LIMIT: (ALL, 1.0, 30.0),
    Category.UNAVAILABLE: (ALL, 0.2, 10.0),
}


@final
class Dice(random.Random):
    """Draws the same place in every range: 0 the lower end, 1 the upper."""

    def __init__(self, place: float) -> None:
        super().__init__(0)
        self.place = place

    def uniform(self, a: float, b: float) -> float:
        return a + (b - a) * self.place


def _pause_s(
    policy: RetryPolicy,
    error: PacelineError,
    effect: Effect | None = None,
    *,
    attempt: int = 1,
    remaining_s: float | None = None,
    place: float = 0.5,
) -> float | None:
    return policy.pause_s(
        error, effect or Effect.pure(), attempt=attempt, remaining_s=remaining_s, rng=Dice(place)
    )


def check_safety(policy: RetryPolicy) -> None:
    """What may have started is repeated only where its effect allows; all else that passes is."""
    for category in Category:
        for kind in EffectKind:
            for started in (False, True):
                error = PacelineError("x", category=category, may_have_started=started)
                again = _pause_s(policy, error, Effect(kind)) is not None
                harmless = not started or kind in (EffectKind.PURE, EffectKind.READ)
                assert again == (category.transient and harmless), (category, kind, started)
            error = PacelineError("x", category=category, may_have_started=True)
            twice = Effect(kind, idempotent=True)
            again = _pause_s(policy, error, twice) is not None
            assert again == (category.transient and kind is not EffectKind.UNKNOWN)


def check_attempts(policy: RetryPolicy) -> None:
    """Executions end at the policy's number, and for some kinds of trouble before."""
    for category, (most, _, _) in LIMITS.items():
        executions = 1
        while _pause_s(policy, PacelineError("x", category=category), attempt=executions):
            executions += 1
            assert executions < 10
        assert executions == min(policy.max_attempts, most)


def check_jitter(policy: RetryPolicy) -> None:
    """The pause can be anything from zero to a bound that doubles with every execution."""
    for category, (most, base_s, _) in LIMITS.items():
        for attempt in range(1, min(most, policy.max_attempts)):
            error = PacelineError("x", category=category)
            low, high = (_pause_s(policy, error, attempt=attempt, place=p) for p in (0, 1))
            assert low == 0
            assert high == pytest.approx(base_s * 2 ** (attempt - 1))


def check_wishes(policy: RetryPolicy) -> None:
    """A pause is never shorter than asked for, and never longer than the time there is."""
    for category, (_, base_s, cap_s) in LIMITS.items():
        asked = [0.0, base_s / 2, base_s * 3, cap_s * 0.99]
        for wish_s in asked:
            error = PacelineError("x", category=category, retry_after_s=wish_s)
            pause_s = _pause_s(policy, error, place=0)
            assert pause_s is not None
            assert pause_s >= wish_s
            assert _pause_s(policy, error, place=0, remaining_s=pause_s) is None
            assert _pause_s(policy, error, place=0, remaining_s=pause_s + 0.001) == pause_s
        for wish_s in (cap_s * 1.01, 86_400.0, float("inf")):
            error = PacelineError("x", category=category, retry_after_s=wish_s)
            assert _pause_s(policy, error) is None


def test_the_effect_decides_what_is_repeated() -> None:
    """Trouble before the start is always retried, trouble after it only for pure and read
    effects and writes that are idempotent, so a timed-out command with effects runs once. (X-15,
    S1-19)"""
    check_safety(RetryPolicy())


@pytest.mark.parametrize("max_attempts", [1, 2, 3, 9])
def test_executions_are_counted_with_the_first(max_attempts: int) -> None:
    """`max_attempts` is the number of executions in all, three if nothing is said; a time-out gets
    two at most. (X-13, S1-19, S2-22)"""
    check_attempts(RetryPolicy(max_attempts))
    assert RetryPolicy().max_attempts == RunSettings().max_attempts == 3


def test_pauses_are_spread_from_zero() -> None:
    """Pauses are drawn from zero to a bound that doubles. (S1-19)"""
    check_jitter(RetryPolicy())


def test_the_other_side_and_the_deadline_are_respected() -> None:
    """A pause is as long as the other side asked for, and no call waits for an execution that
    its deadline, or the longest pause, leaves no time for. (S1-19, X-18)"""
    check_wishes(RetryPolicy())


@given(
    category=st.sampled_from(Category),
    effect=EFFECTS,
    started=st.booleans(),
    wish_s=st.one_of(st.none(), st.floats(allow_nan=True)),
    attempt=st.integers(1, 10),
    remaining_s=st.one_of(st.none(), st.floats(0, 1e6)),
    seed=st.integers(),
)
def test_a_decision_is_a_pause_within_bounds_and_repeatable(
    *,
    category: Category,
    effect: Effect,
    started: bool,
    wish_s: float | None,
    attempt: int,
    remaining_s: float | None,
    seed: int,
) -> None:
    """For any error the answer is None or a pause of zero to thirty seconds that fits into the
    time left, and the same random numbers give the same answer. (S1-19)"""
    error = PacelineError("x", category=category, may_have_started=started, retry_after_s=wish_s)
    first, second = (
        RetryPolicy().pause_s(
            error, effect, attempt=attempt, remaining_s=remaining_s, rng=random.Random(seed)
        )
        for _ in range(2)
    )
    assert first == second
    if first is not None:
        assert 0 <= first < min(30, remaining_s if remaining_s is not None else 30)


class RepeatsEverything(RetryPolicy, frozen=True):
    """Trusts every effect."""

    def pause_s(self, error: PacelineError, effect: Effect, **rest: object) -> float | None:
        return super().pause_s(error, Effect.pure(), **rest)  # type: ignore[arg-type]


class NeverRepeatsEffects(RetryPolicy, frozen=True):
    """Gives up on effects even where nothing has started."""

    def pause_s(self, error: PacelineError, effect: Effect, **rest: object) -> float | None:
        return super().pause_s(error, effect, **rest) if effect.repeatable else None  # type: ignore[arg-type]


class CountsRetries(RetryPolicy, frozen=True):
    """Takes its number for that of the executions after the first."""

    def pause_s(self, error: PacelineError, effect: Effect, **rest: object) -> float | None:
        rest["attempt"] = rest["attempt"] - 1  # type: ignore[operator]
        return super().pause_s(error, effect, **rest)  # type: ignore[arg-type]


class HasNoJitter(RetryPolicy, frozen=True):
    """Waits for the bound, like everybody else at that moment."""

    def pause_s(self, error: PacelineError, effect: Effect, **rest: object) -> float | None:
        return super().pause_s(error, effect, **{**rest, "rng": Dice(1)})  # type: ignore[arg-type]


class DoesNotListen(RetryPolicy, frozen=True):
    """Ignores what the other side asks for."""

    def pause_s(self, error: PacelineError, effect: Effect, **rest: object) -> float | None:
        deaf = PacelineError("x", category=error.category)
        return super().pause_s(deaf, effect, **rest)  # type: ignore[arg-type]


class HasAllTheTime(RetryPolicy, frozen=True):
    """Ignores the deadline."""

    def pause_s(self, error: PacelineError, effect: Effect, **rest: object) -> float | None:
        return super().pause_s(error, effect, **{**rest, "remaining_s": None})  # type: ignore[arg-type]


def test_policies_with_a_fault_are_caught() -> None:
    """Each check above fails for a policy that does what the check forbids."""
    for check, mutant in (
        (check_safety, RepeatsEverything()),
        (check_safety, NeverRepeatsEffects()),
        (check_attempts, CountsRetries(2)),
        (check_jitter, HasNoJitter()),
        (check_wishes, DoesNotListen()),
        (check_wishes, HasAllTheTime()),
    ):
        with pytest.raises(AssertionError):
            check(mutant)


def test_the_categories_that_pass_by_themselves_are_the_ones_retried() -> None:
    """The categories called transient and those with a pause are the same."""
    assert sorted(LIMITS) == TRANSIENT
