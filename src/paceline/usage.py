"""What running calls use of models: reported while they run, priced, and added up for each call.

::

    answer = await client.messages.create(model=model, ...)
    report_usage(model, input=answer.usage.input_tokens, output=answer.usage.output_tokens)

What an execution uses goes to its `Meter`, which is in a context variable: tasks and threads that
inherit the context report to the same one, and a call made inside a call has its own.
"""

import contextlib
import logging
import threading
from collections.abc import Callable, Generator
from contextvars import ContextVar
from typing import Final, Protocol, final

import msgspec

from paceline.call import Source, Tokens
from paceline.clock import Clock
from paceline.pricing import PriceList, day_of

__all__ = [
    "Meter",
    "Metering",
    "Paid",
    "Spent",
    "current_meter",
    "metered",
    "report_usage",
    "spent_on",
]

_log = logging.getLogger("paceline")
_MOST: Final = 10**12
"""Tokens, or dollars, of one model call; more is taken for a mistake."""
_TOLD: Final = 1_000
_LONGEST: Final = 200
"""Characters of the name of a model that are kept."""


class Spent(msgspec.Struct, frozen=True, gc=False):
    """What `reports` model calls used. The money is of those whose price is known, None if that is
    none of them; of `unpriced` ones it is not. `raw_usd` is without discounts."""

    tokens: Tokens = Tokens()
    cost_usd: float | None = None
    raw_usd: float | None = None
    reports: int = 0
    unpriced: int = 0

    def plus(self, other: "Spent") -> "Spent":
        """Both together."""
        return Spent(
            self.tokens.plus(other.tokens),
            _sum(self.cost_usd, other.cost_usd),
            _sum(self.raw_usd, other.raw_usd),
            self.reports + other.reports,
            self.unpriced + other.unpriced,
        )


NOTHING: Final = Spent()


class Paid(Protocol):
    """What is known of the cost of a call that is over; an Outcome, or its record."""

    @property
    def source(self) -> Source:
        """Where its value is from."""
        ...

    @property
    def attempts(self) -> int:
        """How often it was executed."""
        ...

    @property
    def tokens(self) -> Tokens | None:
        """What it used."""
        ...

    @property
    def cost_usd(self) -> float | None:
        """What that cost."""
        ...

    @property
    def raw_usd(self) -> float | None:
        """The same without discounts."""
        ...

    @property
    def unpriced(self) -> int:
        """Model calls of unknown price."""
        ...

    @property
    def saved_usd(self) -> float | None:
        """What a result that is served again had cost."""
        ...


def spent_on(call: Paid, price_usd: float) -> Spent:
    """What a call that is over cost: nothing if it was not executed; what was measured; else what
    one execution costs by its plan, for each."""
    if call.source.cached:
        return NOTHING
    cost_usd, raw_usd = call.cost_usd, call.raw_usd
    if cost_usd is None and price_usd and call.attempts:
        cost_usd = price_usd * call.attempts
    if raw_usd is None:
        raw_usd = cost_usd
    return Spent(call.tokens or Tokens(), cost_usd, raw_usd, 0, call.unpriced)


@final
class Metering:
    """Makes meters, and prices what they are told. A model without a price is told of once."""

    __slots__ = ("_clock", "_prices", "_told", "lock")

    def __init__(self, prices: PriceList, clock: Clock) -> None:
        self.lock = threading.Lock()
        """That of all its meters: what is rare need not have one each."""
        self._prices = prices
        self._clock = clock
        self._told: set[str] = set()

    def meter(self, noted: Callable[[str, Spent], object] | None = None) -> "Meter":
        """A meter for one execution; `noted` is given each model and what a call of it used, at
        once and on the thread that reports it."""
        return Meter(self, noted)

    def spent(self, model: str, tokens: Tokens, cost_usd: float | None = None) -> Spent:
        """What one model call used; `cost_usd` is what it cost where that is known better."""
        if cost_usd is not None:
            return Spent(tokens, cost_usd, cost_usd, 1)
        cost = self._prices.cost(model, tokens, day_of(self._clock.wall_ns()))
        if cost is None:
            self._tell(model)
            return Spent(tokens, None, None, 1, 1)
        return Spent(tokens, cost.cost_usd, cost.raw_usd, 1)

    def _tell(self, model: str) -> None:
        if model in self._told or len(self._told) >= _TOLD:
            return
        self._told.add(model)
        _log.warning(
            "model %r has no price: what it costs is in no figure and no budget in dollars;"
            ' add [prices."%s"] to the settings',
            model,
            model,
        )


@final
class Meter:
    """Adds up what one execution uses, from any thread."""

    __slots__ = ("_metering", "_noted", "spent")

    def __init__(
        self, metering: Metering, noted: Callable[[str, Spent], object] | None = None
    ) -> None:
        self._metering = metering
        self._noted = noted
        self.spent: Spent | None = None
        """What was used so far; None if nothing was reported."""

    def add(self, model: str, tokens: Tokens, cost_usd: float | None = None) -> Spent:
        """Adds one model call; returns what it used."""
        spent = self._metering.spent(model, tokens, cost_usd)
        with self._metering.lock:
            self.spent = spent if self.spent is None else self.spent.plus(spent)
        if self._noted is not None:
            self._noted(model, spent)
        return spent


current_meter: ContextVar[Meter | None] = ContextVar("paceline_current_meter", default=None)
"""Where the running code's model calls are added up."""


@contextlib.contextmanager
def metered(meter: Meter) -> Generator[Meter]:
    """Lets what runs inside report to this meter."""
    token = current_meter.set(meter)
    try:
        yield meter
    finally:
        current_meter.reset(token)


def report_usage(
    model: str = "",
    *,
    input: int | None = 0,  # noqa: A002 (the word of every provider)
    output: int | None = 0,
    cached_input: int | None = 0,
    cache_write: int | None = 0,
    reasoning: int | None = 0,
    input_excludes_cache: bool = False,
    cost_usd: float | None = None,
) -> bool:
    """Says what a model call of the running agent used; several add up.

    `input` counts the tokens read from the provider's cache (`cached_input`) and written to it
    (`cache_write`) too; say `input_excludes_cache=True` for a provider that counts them apart, as
    Anthropic does. `reasoning` is a part of `output`. None is 0. The price is that of `model` in
    the settings, or `cost_usd` where the provider says it, or for what is paid by other measures
    than tokens.

    Returns whether it was noted. It never raises for a value, as measuring must not break what is
    measured: outside a call nothing happens, and a count that is negative or no whole number is
    left out and logged.
    """
    meter = current_meter.get()
    if meter is None:
        return False
    counts = [
        0 if count is None else count
        for count in (input, output, cached_input, cache_write, reasoning)
    ]
    if not all(map(_is_count, counts)) or not (cost_usd is None or _is_amount(cost_usd)):
        _log.warning("usage of model %r is left out: %r, cost %r", model, counts, cost_usd)
        return False
    if cost_usd is None and not any(counts):
        return False
    meter.add(str(model)[:_LONGEST], _tokens(counts, apart=input_excludes_cache), cost_usd)
    return True


def _tokens(counts: list[int], *, apart: bool) -> Tokens:
    """What cannot be a part of the whole was counted apart from it, whether that was said or not."""
    whole, output, cached, write, reasoning = counts
    if apart or cached + write > whole:
        whole += cached + write
    if reasoning > output:
        output += reasoning
    return Tokens(whole, output, cached, write, reasoning)


def _is_count(count: object) -> bool:
    return isinstance(count, int) and 0 <= count <= _MOST


def _is_amount(amount: object) -> bool:
    return isinstance(amount, (int, float)) and 0 <= amount <= _MOST  # neither NaN nor infinite


def _sum(one: float | None, other: float | None) -> float | None:
    if one is None or other is None:
        return other if one is None else one
    return one + other
