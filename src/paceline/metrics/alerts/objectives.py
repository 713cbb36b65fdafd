"""Service level objectives: alerts by how fast the budget of failures is used up. Pure.

An objective of 99 % allows 1 % of the calls of 30 days to be bad. That budget burns at rate 1 if
it lasts 30 days, at 14.4 if an hour takes 2 % of it. A burn rate is looked at over a long window,
which says that it matters, and over a short one, which says that it goes on, and ends the alert
soon after (B. Beyer and others, The Site Reliability Workbook, 2018, chapter 5).

Figures are kept for 1 m, 5 m, 1 h and 24 h, so of the four pairs of that chapter these two:

- 14.4 over 1 h and 5 min (2 % of the budget), as it stands there, critical;
- 3 over 24 h and 1 h (10 %), a warning. The short window there is 2 h; the shorter one of ours
  ends the alert earlier and may let it go for a while when failures come in bursts.

What falls between, 5 % of the budget in 6 h, is seen by the second pair: later, but before 10 %
are gone. Nothing is kept for the 3 days of the fourth pair. `prometheus.to_prometheus` writes the
same two. In the first minutes of a process its windows hold no more than these minutes.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec

from paceline.errors import ConfigError
from paceline.metrics.alerts.rules import Condition, Per, Rule, Severity

__all__ = ["BURNS", "Burn", "Objective"]

_NO_LABELS: Final[Mapping[str, str]] = {}
_DAYS: Final = 30


class Burn(NamedTuple):
    """A rate of burning that is an alert."""

    name: str
    factor: float
    long: str
    short: str
    severity: Severity
    budget: float
    """The share of the budget that this rate takes in the long window."""


BURNS: Final = (
    Burn("FastBurn", 14.4, "1h", "5m", Severity.CRITICAL, 0.02),
    Burn("SlowBurn", 3.0, "24h", "1h", Severity.WARNING, 0.10),
)
"""`factor` is `budget` of 30 days, used in the long window."""


class Objective(msgspec.Struct, frozen=True, kw_only=True):
    """That a share of calls is good: succeeds, or takes no longer than `latency_ms`.

    `objective` lies between 0 and 1. `min_count` calls have to be in the short window for an
    alert to begin. Raises ConfigError for an objective that is none.
    """

    name: str
    objective: float
    latency_ms: float | None = None
    min_count: int = 20
    per: Per = Per.AGENT
    agents: tuple[str, ...] = ()
    labels: Mapping[str, str] = _NO_LABELS

    def __post_init__(self) -> None:
        if not 0 < self.objective < 1:
            raise ConfigError(
                f"{self.name}: an objective lies between 0 and 1, not at {self.objective:g}",
                next_step="Write 99 % as 0.99.",
            )
        if not self.rules():
            raise ConfigError(
                f"{self.name}: an objective of {self.objective:.3g} allows so many failures that"
                " no burn rate can be an alert",
                next_step="Raise the objective, or write a rule with a bound.",
            )

    def rules(self) -> tuple[Rule, ...]:
        """A rule for each burn rate; a rate at which more than all calls were bad has none."""
        return tuple([self._rule(burn) for burn in BURNS if self._limit(burn) < 1])

    def _limit(self, burn: Burn) -> float:
        return round(
            burn.factor * (1 - self.objective), 12
        )  # without the noise of binary fractions

    def _rule(self, burn: Burn) -> Rule:
        return Rule(
            name=f"{self.name}{burn.name}",
            conditions=(self._condition(burn, burn.long), self._condition(burn, burn.short)),
            per=self.per,
            agents=self.agents,
            severity=burn.severity,
            labels={**self.labels, "objective": self.name},
            summary=(
                f"The budget of {self.name} burns at more than {burn.factor:g} times its rate:"
                f" {burn.budget:.0%} of {_DAYS} days in {burn.long}."
            ),
            target=f"{self.objective * 100:.6g} % {self._good}",
        )

    @property
    def _good(self) -> str:
        return f"within {self.latency_ms:g} ms" if self.latency_ms else "succeed"

    def _condition(self, burn: Burn, window: str) -> Condition:
        return Condition(
            metric="slow_share" if self.latency_ms else "failure_rate",
            window=window,
            above=self._limit(burn),
            min_count=self.min_count,
            slower_than_ms=self.latency_ms,
        )
