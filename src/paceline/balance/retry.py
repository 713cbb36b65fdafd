"""Whether, and when, to execute a call again. Pure: it decides, the call path waits."""

import random
from typing import Final, final

import msgspec

from paceline.call import Effect
from paceline.errors import Category, OverloadedError, PacelineError, Shortage

__all__ = ["RetryBudget", "RetryPolicy"]


class _Backoff(msgspec.Struct, frozen=True):
    """The range in seconds that the pause grows through, and executions at most, 0 for as many as
    the policy says."""

    base_s: float
    cap_s: float
    attempts: int = 0


# Only trouble that passes by itself is here; a time-out has used much of the time already and
# gets one more try only.
_BY_CATEGORY: Final = {
    Category.NETWORK: _Backoff(0.2, 10.0),
    Category.TIMEOUT: _Backoff(0.5, 15.0, 2),
    Category.RATE_LIMIT: _Backoff(1.0, 30.0),
    Category.UNAVAILABLE: _Backoff(0.2, 10.0),
}


_OPENS_AGAIN: Final = frozenset({Shortage.CIRCUIT_OPEN, Shortage.RATE_LIMIT, Shortage.UNHEALTHY})
_LONGEST_WAIT_S: Final = 10.0
_SPREAD: Final = 0.1


class RetryPolicy(msgspec.Struct, frozen=True):
    """Retries with full jitter, where repeating does no harm.

    `max_attempts` counts executions, the first included; a time-out has one more at most. An error that came before the work can have started may always be tried again;
    after that the effect decides. Pauses are drawn uniformly from zero to an exponentially
    growing bound ("full jitter": M. Brooker, Exponential Backoff and Jitter, 2015), and never
    shorter than the other side asked for. Asked for longer than a pause may be, we give up and
    leave it to the caller, who finds the wish in the error.
    """

    max_attempts: int = 3

    def pause_s(
        self,
        error: PacelineError,
        effect: Effect,
        *,
        attempt: int,
        remaining_s: float | None,
        rng: random.Random,
    ) -> float | None:
        """Seconds to wait before the next execution, or None to give up.

        `attempt` is the number of executions so far, and of those that were refused;
        `remaining_s` the time left, if limited. Who was refused until a known moment waits for it.
        """
        if isinstance(error, OverloadedError) and not error.may_have_started:
            return self._until_room_s(error, attempt, remaining_s, rng)
        backoff = _BY_CATEGORY.get(error.category)
        if backoff is None or attempt >= min(
            self.max_attempts, backoff.attempts or self.max_attempts
        ):
            return None
        if error.may_have_started and not effect.retryable:
            return None
        bound = min(backoff.cap_s, backoff.base_s * 2 ** (attempt - 1))
        pause = max(rng.uniform(0, bound), error.retry_after_s or 0.0)
        limit_s = backoff.cap_s if remaining_s is None else min(backoff.cap_s, remaining_s)
        return pause if pause < limit_s else None

    def _until_room_s(
        self,
        error: OverloadedError,
        attempt: int,
        remaining_s: float | None,
        rng: random.Random,
    ) -> float | None:
        """Nothing was executed: waiting costs nobody anything, if it is known for how long."""
        wait_s = error.retry_after_s
        if wait_s is None or error.reason not in _OPENS_AGAIN or attempt >= self.max_attempts:
            return None
        limit_s = _LONGEST_WAIT_S if remaining_s is None else min(_LONGEST_WAIT_S, remaining_s)
        pause_s = wait_s + rng.uniform(0, _SPREAD * wait_s)  # not all at the same moment
        return pause_s if pause_s < limit_s else None


@final
class RetryBudget:
    """How many retries all calls together may make: when much fails, repeating it all would
    multiply the load on what is in trouble already.

    First executions pay in, retries take out. `share` is the number of retries that each first
    execution pays for, `most` what can be saved up (Google SRE book, chapter 22: a budget of
    10 % per client keeps the growth of load at 1.1 times).
    """

    __slots__ = ("_left", "_most", "_share")

    def __init__(self, share: float = 0.1, most: float = 20.0) -> None:
        """Begins with all of `most`, so that a young process may retry."""
        self._share = share
        self._most = most
        self._left = most

    def deposit(self) -> None:
        """Counts a first execution."""
        if self._left < self._most:
            self._left = min(self._most, self._left + self._share)

    def spend(self) -> bool:
        """Takes one retry out; False, and nothing is taken, where none is left."""
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def refund(self) -> None:
        """Puts one back that was taken and not made."""
        self._left = min(self._most, self._left + 1)
