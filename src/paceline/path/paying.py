"""What calls cost, and whether there is money for them: prices, meters and budgets of one runtime."""

import asyncio
from collections.abc import Callable, Sequence
from typing import final

from paceline.balance.budget import Budget, budgets_of
from paceline.balance.spending import Spending
from paceline.call import Call
from paceline.clock import Clock
from paceline.errors import PacelineError
from paceline.history.store import HistoryStore
from paceline.pricing import PriceList
from paceline.settings import Settings
from paceline.usage import Meter, Metering

__all__ = ["Paying"]


@final
class Paying:
    """Gives each execution its meter, and counts what is spent against the budgets."""

    __slots__ = ("_metering", "spending")

    def __init__(
        self, clock: Clock, prices: PriceList | None = None, budgets: Sequence[Budget] = ()
    ) -> None:
        self._metering = Metering(prices or PriceList(), clock)
        self.spending = Spending(budgets, clock)

    @classmethod
    async def open(
        cls,
        settings: Settings,
        clock: Clock,
        history: HistoryStore | None,
        notice: Callable[[str, PacelineError], object],
    ) -> "Paying":
        """By the settings, with what was spent before in the present day and month; `notice` is
        told if the history cannot be read. Raises ConfigError."""
        paying = cls(clock, PriceList(settings.prices), budgets_of(settings.budgets))
        since_ns = paying.spending.since_ns
        if history is not None and since_ns is not None:
            try:
                for bill in await asyncio.to_thread(history.bills, since_ns):
                    paying.spending.restore(bill)
            except PacelineError as exc:
                notice("what was spent before is not known, so budgets begin anew", exc)
        return paying

    def meter(self, call: Call) -> Meter:
        """Where the model calls of an execution are added up; they count at once."""
        spending = self.spending
        if not spending.limited:
            return Meter(self._metering)
        return Meter(self._metering, lambda _, spent: spending.note(call, spent))
