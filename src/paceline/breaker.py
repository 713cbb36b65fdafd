"""A circuit breaker: stops asking what does not answer, and finds out when it does again.

Pure: it only counts and looks at the clock; whoever calls it does the asking. ::

    closed --(too many failures)--> open --(a wait)--> half-open --(all probes succeed)--> closed
                                      ^                    |
                                      +---(a probe fails)--+

Each wait is twice the one before, up to a limit, unless the breaker had been closed for as long
as the longest wait, or a minute: what answers for a moment only is asked less and less.
"""

import random
from enum import StrEnum
from typing import Final, final

from paceline.clock import Clock

__all__ = ["Breaker", "BreakerState"]

_NS: Final = 1_000_000_000
_TRUSTED_AFTER_S: Final = 60.0


class BreakerState(StrEnum):
    """Whether calls are admitted: all, none, or a few to try."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


# Asking an enum for a member takes longer than comparing with it.
_CLOSED: Final = BreakerState.CLOSED


@final
class Breaker:
    """Opens after `failures` in a row, or when of the last `window` outcomes the share `rate`
    (0..1; None: never) failed; then waits `wait_s` seconds, up to `longest_wait_s`.

    Half-open admits exactly `probes` calls and closes when all of them succeeded. With `dice`
    each wait is a random part of it, at least half, so that many do not try at the same moment.
    Every admitted call hands its permit back with its outcome, once; permits of an earlier
    state are ignored, so a slow call of before says nothing about now. Probes that never report
    make place for others after the wait.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        failures: int = 5,
        rate: float | None = None,
        window: int = 32,
        probes: int = 1,
        wait_s: float = 1.0,
        longest_wait_s: float = 30.0,
        dice: random.Random | None = None,
    ) -> None:
        if failures < 1 or window < 1 or probes < 1 or not 0 < wait_s <= longest_wait_s:
            raise ValueError("a breaker needs positive counts, and waits in ascending order")
        self._clock = clock
        self._in_a_row = (1 << failures) - 1
        self._window = (1 << window) - 1
        self._too_many = None if rate is None else max(1, round(rate * window))
        self._probes = probes
        self._first_ns = round(wait_s * _NS)
        self._longest_ns = round(longest_wait_s * _NS)
        self._trusted_ns = round(min(longest_wait_s, _TRUSTED_AFTER_S) * _NS)
        self._dice = dice
        self._state = BreakerState.CLOSED
        self._epoch = 1  # a new one for every state; it is the permit
        self._outcomes = 0  # the latest is the lowest bit, 1 a failure
        self._known = 0  # outcomes of the window so far
        self._since_ns = clock.monotonic_ns()
        self._wait_ns = 0  # of this time, by chance; and before chance
        self._base_ns = 0
        self._admitted = 0  # probes of this state: out, and succeeded
        self._succeeded = 0

    @property
    def state(self) -> BreakerState:
        """As of the last call; an open breaker becomes half-open by being asked."""
        return self._state

    @property
    def admits(self) -> bool:
        """Whether `admit` would give a permit now."""
        if self._state is BreakerState.CLOSED:
            return True
        probing = self._state is BreakerState.HALF_OPEN and self._admitted < self._probes
        return probing or self.remaining_ns() == 0

    @property
    def at_rest(self) -> bool:
        """Whether it is closed, and would not learn from another success."""
        return self._state is _CLOSED and not self._outcomes and self._too_many is None

    def admit(self) -> int:
        """A permit for one call, or 0: do not call."""
        if self._state is _CLOSED:
            return self._epoch
        if self.remaining_ns() == 0 and (
            self._state is BreakerState.OPEN or self._admitted >= self._probes
        ):
            self._enter(BreakerState.HALF_OPEN)
        if self._state is BreakerState.OPEN or self._admitted >= self._probes:
            return 0
        self._admitted += 1
        return self._epoch

    def succeeded(self, permit: int) -> None:
        """The call was answered."""
        if permit != self._epoch:
            return
        if self._state is _CLOSED:
            if self._outcomes or self._too_many is not None:  # else there is nothing to forget
                self._record(0)
            return
        self._succeeded += 1
        if self._succeeded >= self._probes:
            self._enter(BreakerState.CLOSED)

    def failed(self, permit: int) -> None:
        """The call failed in a way that says something about the other side."""
        if permit != self._epoch:
            return
        if self._state is BreakerState.CLOSED:
            self._record(1)
            in_a_row = self._outcomes & self._in_a_row == self._in_a_row
            if not in_a_row and not self._rate_is_reached():
                return
        self._open()

    def abandoned(self, permit: int) -> None:
        """The call ended without saying anything, as when its caller was cancelled."""
        if permit == self._epoch and self._state is BreakerState.HALF_OPEN:
            self._admitted -= 1

    def trip(self) -> None:
        """Opens it at once, whatever the counts: the other side is known to be gone."""
        if self._state is not BreakerState.OPEN:
            self._open()

    def remaining_ns(self) -> int:
        """How long until a call may be admitted that is not now, in nanoseconds."""
        if self._state is BreakerState.CLOSED:
            return 0
        return max(0, self._since_ns + self._wait_ns - self._clock.monotonic_ns())

    def _record(self, failed: int) -> None:
        self._outcomes = (self._outcomes << 1 | failed) & (self._window | self._in_a_row)
        self._known += 1

    def _rate_is_reached(self) -> bool:
        if self._too_many is None or self._known < self._window.bit_length():
            return False
        return (self._outcomes & self._window).bit_count() >= self._too_many

    def _open(self) -> None:
        now_ns = self._clock.monotonic_ns()
        held = self._state is BreakerState.CLOSED and now_ns - self._since_ns >= self._trusted_ns
        if held or not self._wait_ns:
            self._base_ns = self._first_ns
        else:
            self._base_ns = min(self._base_ns * 2, self._longest_ns)
        part = 1.0 if self._dice is None else self._dice.uniform(0.5, 1.0)
        self._wait_ns = max(1, round(self._base_ns * part))
        self._enter(BreakerState.OPEN)

    def _enter(self, state: BreakerState) -> None:
        self._state = state
        self._epoch += 1
        self._since_ns = self._clock.monotonic_ns()
        self._admitted = self._succeeded = 0
        self._outcomes = self._known = 0
