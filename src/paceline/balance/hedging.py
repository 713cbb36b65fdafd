"""When to ask a second instance because the first takes long.

A request is repeated a little after the 95th percentile of what such requests took, so about 5 % are, and
the tail becomes that of the better of two (J. Dean, L. A. Barroso, The Tail at Scale, 2013). A
budget keeps it so when everything gets slow: then second requests would only make it slower.
"""

from typing import Final, final

from paceline.balance.durations import Durations
from paceline.balance.retry import RetryBudget

__all__ = ["Hedging"]

_AFTER: Final = 0.95
_LATER: Final = 1.1
"""Where all take the same time, none is slow for taking that."""
_SAVED_UP: Final = 10.0


@final
class Hedging:
    """Decides for one fleet."""

    __slots__ = ("_budget", "_durations")

    def __init__(self, durations: Durations, share: float = 0.05) -> None:
        """`durations` of its requests; second ones are at most this `share` of the first ones,
        with ten saved up."""
        self._durations = durations
        self._budget = RetryBudget(share, _SAVED_UP)

    def delay_s(self) -> float | None:
        """How long to wait for the answer to a first request, which is counted, before asking
        again; None where too little is known."""
        self._budget.deposit()
        usual_s = self._durations.quantile(_AFTER)
        return None if usual_s is None else _LATER * usual_s

    def spend(self) -> bool:
        """Takes a second request from the budget; False if none is left."""
        return self._budget.spend()

    def refund(self) -> None:
        """Gives back what was taken for a second request that nobody could take."""
        self._budget.refund()
