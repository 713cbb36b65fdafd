"""Budgets: how much may be spent in a day, a month or a run. Pure: it decides, who keeps the sums
asks.

Money is counted in whole billionths of a dollar, so that sums are exact.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Final, Literal, NamedTuple

import msgspec

from paceline.errors import ConfigError
from paceline.settings import BudgetPer, BudgetSettings, BudgetWindow

__all__ = [
    "NOTHING",
    "Amount",
    "Budget",
    "Span",
    "Verdict",
    "budgets_of",
    "nano_usd",
    "span_of",
    "usd",
]

_NANO: Final = 1_000_000_000


class Amount(NamedTuple):
    """Money, in billionths of a dollar, and tokens."""

    nano_usd: int = 0
    tokens: int = 0


NOTHING: Final = Amount()


class Verdict(StrEnum):
    """What a budget says of one more call that costs."""

    FREE = "free"
    LOW = "low"
    USED_UP = "used_up"


class Budget(msgspec.Struct, frozen=True):
    """A limit on what is spent in a window of time or in a run; None is no limit."""

    name: str
    limit_nano_usd: int | None = None
    limit_tokens: int | None = None
    window: BudgetWindow = "day"
    per: BudgetPer = "all"
    agents: tuple[str, ...] = ()
    warn_at: float = 0.8

    def covers(self, agent: str) -> bool:
        """Whether calls of this agent count."""
        return not self.agents or any(fnmatchcase(agent, pattern) for pattern in self.agents)

    def check(self, spent: Amount, expected: Amount = NOTHING) -> Verdict:
        """Whether one more call may be made after what was spent, the calls in flight included as
        far as their cost is known. `expected` is the cost of this one, as far as it is known.

        A budget is used up when its limit is reached, or would be exceeded by what is expected.
        """
        for limit, so_far, more in self._limits(spent, expected):
            if so_far >= limit or so_far + more > limit:
                return Verdict.USED_UP
        return Verdict.LOW if self.share(spent) >= self.warn_at else Verdict.FREE

    def share(self, spent: Amount) -> float:
        """How much of it is used: 1 is all; of two limits, the one that is nearer."""
        return max(
            [so_far / limit if limit else 1.0 for limit, so_far, _ in self._limits(spent, NOTHING)],
            default=0.0,
        )

    def _limits(self, spent: Amount, expected: Amount) -> list[tuple[int, int, int]]:
        both = zip((self.limit_nano_usd, self.limit_tokens), spent, expected, strict=True)
        return [(limit, so_far, more) for limit, so_far, more in both if limit is not None]


class Span(NamedTuple):
    """A window of time, by the wall clock; its end is no part of it."""

    start_ns: int
    end_ns: int


def span_of(window: Literal["day", "month"], wall_ns: int) -> Span:
    """The day or month that a moment is in, in UTC."""
    at = datetime.fromtimestamp(wall_ns // _NANO, UTC)
    start = at.replace(hour=0, minute=0, second=0, microsecond=0)
    if window == "day":
        return Span(_ns(start), _ns(start + timedelta(days=1)))
    start = start.replace(day=1)
    return Span(_ns(start), _ns((start + timedelta(days=31)).replace(day=1)))


def budgets_of(settings: Mapping[str, BudgetSettings]) -> tuple[Budget, ...]:
    """The budgets of the settings, by name. Raises ConfigError for one without a limit."""
    budgets: list[Budget] = []
    for name, given in settings.items():
        if given.limit_usd is None and given.limit_tokens is None:
            raise ConfigError(
                f"budgets.{name} has no limit", next_step="Set limit_usd, limit_tokens or both."
            )
        budgets.append(
            Budget(
                name,
                None if given.limit_usd is None else nano_usd(given.limit_usd),
                given.limit_tokens,
                given.window,
                given.per,
                given.agents,
                given.warn_at,
            )
        )
    return tuple(budgets)


def nano_usd(amount: float) -> int:
    """Dollars in billionths, rounded."""
    return round(amount * _NANO)


def usd(nano: int) -> float:
    """Billionths in dollars."""
    return nano / _NANO


def _ns(at: datetime) -> int:
    return int(at.timestamp()) * _NANO
