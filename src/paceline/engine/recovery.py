"""What to do about trouble in a turn. Pure: it decides, the turn acts.

What goes wrong in a tool is told to the model and needs no decision here: the model sees it, and
goes on. What is decided here is trouble in asking the model, and memory running short.
"""

import random
from typing import Final

import msgspec

from paceline.engine.states import AgentState, TransitionTrigger, Trouble
from paceline.errors import Category, OverloadedError, PacelineError, Shortage

__all__ = [
    "Degrade",
    "GiveUp",
    "Recovery",
    "Retry",
    "Shorten",
    "left_alone",
    "recovery",
    "trigger_of",
    "trouble_of",
]

_RATE_LIMIT_FLOOR_S: Final = 5.0
_BASE_S: Final = 1.0
_CAP_S: Final = 60.0
_DOUBLINGS: Final = 10
_SPREAD: Final = 0.1
_LEFT_ALONE: Final = frozenset({Shortage.CIRCUIT_OPEN, Shortage.UNHEALTHY})


class Retry(msgspec.Struct, frozen=True):
    """Try again what was tried, so many seconds later."""

    after_s: float


class Degrade(msgspec.Struct, frozen=True):
    """Give back what can be spared, do less at once, and go on."""


class Shorten(msgspec.Struct, frozen=True):
    """Show the model less, and ask it again."""


class GiveUp(msgspec.Struct, frozen=True):
    """End the turn with its error. `why` is for people."""

    why: str


Recovery = Retry | Degrade | Shorten | GiveUp

_TRIGGERS: Final = {
    Category.TIMEOUT: TransitionTrigger.TIMEOUT,
    Category.RATE_LIMIT: TransitionTrigger.RATE_LIMIT,
    Category.EXHAUSTED: TransitionTrigger.RESOURCE_LIMIT,
    Category.TOO_LONG: TransitionTrigger.RESOURCE_LIMIT,
}


def trigger_of(category: Category) -> TransitionTrigger:
    """What an error of this kind does to the state of a session."""
    return _TRIGGERS.get(category, TransitionTrigger.INTERNAL_ERROR)


def left_alone(error: PacelineError) -> bool:
    """Whether nobody was asked, because of how earlier requests ended: it does not say what is
    wrong."""
    return isinstance(error, OverloadedError) and error.reason in _LEFT_ALONE


def trouble_of(error: PacelineError, origin: AgentState, attempt: int) -> Trouble:
    """The error as trouble in a state; it is the `attempt`th of its kind in the turn.

    It is worth another try if it passes by itself, if it is known when there is room again, or if
    less can be asked.
    """
    passes = (
        error.category.transient
        or error.category is Category.TOO_LONG
        or (isinstance(error, OverloadedError) and error.retry_after_s is not None)
    )
    return Trouble(error.category, error.message, passes, origin, attempt)


def recovery(
    trouble: Trouble,
    *,
    most: int,
    left_s: float,
    retry_after_s: float | None,
    rng: random.Random,
) -> Recovery:
    """What to do about it.

    At most `most` times in a turn for each kind of trouble, and only what ends within `left_s`, the
    time the turn has left. What is too long for a model is shortened once for each answer. `retry_after_s` is how long the other side asked to wait; a tenth at most
    is added, so that not all come back at the same moment.

    Without such a wish, pauses are drawn with full jitter (M. Brooker, Exponential Backoff and
    Jitter, 2015): after a rate limit between 5 s and a bound that doubles, else from zero; no bound
    is above a minute. A time-out has taken its time already, and is tried again at once.
    """
    if not trouble.retryable:
        return GiveUp("trying again would not help")
    if trouble.category is Category.TOO_LONG:
        return Shorten() if trouble.attempt == 1 else GiveUp("it was shortened already")
    if trouble.attempt > most:
        return GiveUp(f"it happened {trouble.attempt} times in this turn")
    if trouble.category is Category.EXHAUSTED and retry_after_s is None:
        return Degrade()
    pause_s = _pause_s(trouble, retry_after_s, rng)
    if pause_s >= left_s:
        return GiveUp(f"waiting {pause_s:.1f} s would outlast the turn")
    return Retry(pause_s)


def _pause_s(trouble: Trouble, retry_after_s: float | None, rng: random.Random) -> float:
    if retry_after_s is not None:
        return retry_after_s * (1 + rng.uniform(0, _SPREAD))
    if trouble.category is Category.TIMEOUT:
        return 0.0
    floor_s = _RATE_LIMIT_FLOOR_S if trouble.category is Category.RATE_LIMIT else 0.0
    bound_s = min(_CAP_S, (floor_s or _BASE_S) * 2 ** min(trouble.attempt, _DOUBLINGS))
    return rng.uniform(floor_s, bound_s)
