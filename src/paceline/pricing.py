"""What model calls cost: prices by model and day, in US dollars per million tokens. Pure.

Paceline brings no prices of its own: they change, and an old price is worse than none.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from fnmatch import translate
from typing import Final, NamedTuple, final

from paceline.call import Tokens
from paceline.errors import ConfigError
from paceline.settings import PriceSettings

__all__ = ["Cost", "PriceList", "Prices", "cost", "day_of"]

_MILLION: Final = 1_000_000
_CACHED_INPUT: Final = 0.10
"""Of the price of input, where no price for reading from the provider's cache is given."""
_CACHE_WRITE: Final = 1.25
"""Of the price of input, where no price for writing to the provider's cache is given."""

# What providers append to a name for the day a model was made. One digit or two would be another
# version of the model, which may have another price.
_EDITION: Final = re.compile(r"[-@:](?:\d{4}|\d{6}|\d{8}|\d{4}-\d{2}-\d{2}|latest)")
_WILD: Final = re.compile(r"[*?]|\[[^\]]*\]")


Prices = Mapping[str, PriceSettings | Sequence[PriceSettings]]


class Cost(NamedTuple):
    """What tokens cost, and would cost without discounts: `raw_usd` is never less."""

    cost_usd: float
    raw_usd: float


def cost(tokens: Tokens, price: PriceSettings) -> Cost:
    """What tokens cost at a price.

    Without discounts, no kind of input costs less than `input`; what costs more, as writing to a
    cache does, costs that.
    """
    cached_rate, write_rate, reasoning_rate = price.cached_input, price.cache_write, price.reasoning
    if cached_rate is None:
        cached_rate = price.input * _CACHED_INPUT
    if write_rate is None:
        write_rate = price.input * _CACHE_WRITE
    if reasoning_rate is None:
        reasoning_rate = price.output
    fresh = max(0, tokens.input - tokens.cached_input - tokens.cache_write)
    said = max(0, tokens.output - tokens.reasoning)
    plain = fresh * price.input + said * price.output + tokens.reasoning * reasoning_rate
    paid = plain + tokens.cached_input * cached_rate + tokens.cache_write * write_rate
    raw = (
        plain
        + tokens.cached_input * max(price.input, cached_rate)
        + tokens.cache_write * max(price.input, write_rate)
    )
    return Cost(paid / _MILLION, raw / _MILLION)


def day_of(wall_ns: int) -> date:
    """The day of a moment of the wall clock, in UTC."""
    return datetime.fromtimestamp(wall_ns // 1_000_000_000, UTC).date()


@final
class PriceList:
    """The prices of models. Names are compared without regard to case."""

    __slots__ = ("_by_name", "_patterns")

    def __init__(self, prices: Prices | None = None) -> None:
        """Raises ConfigError for two prices of one model from the same day."""
        self._by_name: dict[str, tuple[PriceSettings, ...]] = {}
        for name, given in (prices or {}).items():
            several = (given,) if isinstance(given, PriceSettings) else given
            self._by_name[name.lower()] = _dated(name, several)
        longest_first = sorted(self._by_name, key=lambda name: (-_literal(name), name))
        self._patterns = [(_pattern(name), name) for name in longest_first]

    def __bool__(self) -> bool:
        return bool(self._by_name)

    def price(self, model: str, day: date) -> PriceSettings | None:
        """The price of a model on a day; None if nobody said."""
        found = None
        for price in self._of(model.lower()):
            if price.since <= day:
                found = price
        return found

    def cost(self, model: str, tokens: Tokens, day: date) -> Cost | None:
        """What tokens of a model cost on a day; None where there is no price."""
        price = self.price(model, day)
        return None if price is None else cost(tokens, price)

    def _of(self, model: str) -> tuple[PriceSettings, ...]:
        exact = self._by_name.get(model)
        if exact is not None:
            return exact
        for pattern, name in self._patterns:
            if pattern.fullmatch(model):
                return self._by_name[name]
        return ()


def _dated(name: str, prices: Sequence[PriceSettings]) -> tuple[PriceSettings, ...]:
    """The earliest first."""
    days = [price.since for price in prices]
    if len(set(days)) < len(days):
        raise ConfigError(
            f"prices.{name}: two prices are from the same day",
            next_step="Give each another day, as `from = 2026-01-31`.",
        )
    return tuple(sorted(prices, key=lambda price: price.since))


def _pattern(name: str) -> re.Pattern[str]:
    if _WILD.search(name):
        return re.compile(translate(name))
    return re.compile(f"{re.escape(name)}(?:{_EDITION.pattern})?")


def _literal(name: str) -> int:
    """How many characters of a name say which model it is."""
    return len(_WILD.sub("", name))
