"""What a session, and one turn of it, may use: steps, tool calls, time, tokens and money."""

from math import inf
from typing import Final, final

from paceline.call import Tokens
from paceline.clock import Clock
from paceline.engine.states import ResourceLimits
from paceline.errors import BudgetExceededError

__all__ = ["MORE", "SessionBudget", "TurnBudget"]

MORE: Final = "Ask for less in one message, or raise the limit ([chat], or ResourceLimits)."
"""What to do about a limit that a turn has reached."""

_NS: Final = 1_000_000_000
_MONEY: Final = 1e-9
"""Dollars that are none: sums of fractions are not exact."""


@final
class SessionBudget:
    """Counts what the turns of a session used, against its limits."""

    __slots__ = ("_limits", "cost_usd", "tokens")

    def __init__(self, limits: ResourceLimits) -> None:
        self._limits = limits
        self.tokens = 0
        self.cost_usd = 0.0

    def note(self, tokens: Tokens | None, cost_usd: float | None) -> None:
        """Adds what turns used that are over, as far as that is known."""
        if tokens is not None:
            self.tokens += tokens.total
        if cost_usd is not None:
            self.cost_usd += cost_usd

    @property
    def used_up(self) -> str:
        """The limit that is reached, a field of ResourceLimits; empty if none is."""
        limits = self._limits
        if limits.max_session_tokens and self.tokens >= limits.max_session_tokens:
            return "max_session_tokens"
        if limits.max_session_usd and self.cost_usd >= limits.max_session_usd - _MONEY:
            return "max_session_usd"
        return ""

    def check(self) -> None:
        """Raises BudgetExceededError if it is used up. Its `budget` is the field of ResourceLimits."""
        budget = self.used_up
        if not budget:
            return
        reached = f"{getattr(self._limits, budget):.12g}"
        raise BudgetExceededError(
            f"the session reached {budget} = {reached}, after {self.tokens} tokens,"
            f" {self.cost_usd:.4f} USD; nothing was run",
            budget=budget,
            next_step="Open another session, or raise the limit ([chat], or ResourceLimits).",
        )


@final
class TurnBudget:
    """Counts what a turn that begins now uses, against its limits.

    Steps and calls are asked for before they are made. Tokens and money are known only after:
    the answer that crosses a limit still counts, what comes after it is refused. `timeout_s` is
    how long the caller waits, in seconds; the turn ends at that moment or at its own limit.
    """

    __slots__ = (
        "_callers_ns",
        "_clock",
        "_limits",
        "_most_calls",
        "_most_steps",
        "_own_ns",
        "_spent",
        "_started_ns",
        "calls",
        "cost_usd",
        "deadline_ns",
        "steps",
        "tokens",
    )

    def __init__(
        self, limits: ResourceLimits, clock: Clock, *, timeout_s: float | None = None
    ) -> None:
        self._limits = limits
        self._clock = clock
        self._started_ns = clock.monotonic_ns()
        self._own_ns = self._started_ns + round(limits.max_execution_s * _NS)
        self._callers_ns = None if timeout_s is None else self._started_ns + round(timeout_s * _NS)
        self.deadline_ns = self._own_ns
        """When the turn has to be over; a moment of the monotonic clock."""
        self.extend(0)
        self._most_steps = limits.max_steps or inf
        self._most_calls = limits.max_tool_calls or inf
        self._spent = False
        self.steps = 0
        self.calls = 0
        self.tokens: Tokens | None = None
        """What its answers used; None where none said it."""
        self.cost_usd: float | None = None

    def spend(self, *, steps: int = 0, calls: int = 0) -> None:
        """Counts steps and tool calls that are about to be made.

        Raises BudgetExceededError, and counts nothing, if they are more than is allowed, or if time,
        tokens or money are used up. Its `budget` is the field of ResourceLimits, or "timeout_s".
        """
        steps += self.steps
        calls += self.calls
        if (
            steps > self._most_steps
            or calls > self._most_calls
            or self._spent
            or self._clock.monotonic_ns() >= self.deadline_ns
        ):
            reached = self._reached(steps, calls)
            raise BudgetExceededError(
                f"the turn reached {reached}, after {self._used()}",
                budget=reached.partition(" ")[0],
                next_step=MORE,
                may_have_started=True,
            )
        self.steps = steps
        self.calls = calls

    def note(self, tokens: Tokens | None, cost_usd: float | None) -> None:
        """Adds what an answer used, as far as that is known."""
        if tokens is not None:
            self.tokens = tokens if self.tokens is None else self.tokens.plus(tokens)
        if cost_usd is not None:
            self.cost_usd = cost_usd + (self.cost_usd or 0.0)
        self._spent = bool(self._used_up())

    @property
    def calls_left(self) -> float:
        """How many more tool calls may be made; infinite if nothing bounds them."""
        return self._most_calls - self.calls

    def extend(self, ns: int) -> None:
        """Moves the turn's own limit on by the time that a person took; the caller's stays."""
        self._own_ns = self.deadline_ns = self._own_ns + ns
        if self._callers_ns is not None:
            self.deadline_ns = min(self._own_ns, self._callers_ns)

    def left_s(self) -> float:
        """Seconds until the deadline, 0 if it has passed."""
        left_ns = self.deadline_ns - self._clock.monotonic_ns()
        return left_ns / _NS if left_ns > 0 else 0.0

    def _reached(self, steps: int, calls: int) -> str:
        """The limit that is in the way, and its value."""
        limits = self._limits
        if steps > self._most_steps:
            return f"max_steps = {limits.max_steps}"
        if calls > self._most_calls:
            return f"max_tool_calls = {limits.max_tool_calls}"
        if self._spent:
            return self._used_up()
        if self._callers_ns is not None and self._callers_ns <= self._own_ns:
            return f"timeout_s = {(self._callers_ns - self._started_ns) / _NS:g}"
        return f"max_execution_s = {limits.max_execution_s:g}"

    def _used_up(self) -> str:
        """The limit of what answers use that is reached; empty if none is."""
        limits, tokens, usd = self._limits, self.tokens, self.cost_usd
        if limits.max_turn_tokens and tokens and tokens.total >= limits.max_turn_tokens:
            return f"max_turn_tokens = {limits.max_turn_tokens}"
        if limits.max_turn_usd and usd is not None and usd >= limits.max_turn_usd - _MONEY:
            return f"max_turn_usd = {limits.max_turn_usd:g}"
        return ""

    def _used(self) -> str:
        seconds = (self._clock.monotonic_ns() - self._started_ns) / _NS
        used = [_some(self.steps, "step"), _some(self.calls, "tool call"), f"{seconds:.1f} s"]
        if self.tokens is not None:
            used.append(f"{self.tokens.total} tokens")
        if self.cost_usd is not None:
            used.append(f"{self.cost_usd:.4f} USD")
        return ", ".join(used)


def _some(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
