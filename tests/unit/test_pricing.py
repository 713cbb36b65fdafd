"""Prices of models: which one counts, and what tokens cost at it."""

import tomllib
from collections.abc import Callable
from datetime import date

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline import pricing
from paceline.call import Tokens
from paceline.errors import ConfigError
from paceline.pricing import Cost, PriceList, Prices, cost, day_of
from paceline.settings import PriceSettings

JANUARY = date(2026, 1, 1)
JULY = date(2026, 7, 1)
RATES = st.floats(0, 100)
COUNTS = st.integers(0, 10**7)
OPTIONAL = st.none() | RATES
PRICES = st.builds(
    PriceSettings,
    since=st.just(JANUARY),
    input=RATES,
    output=RATES,
    cached_input=OPTIONAL,
    cache_write=OPTIONAL,
    reasoning=OPTIONAL,
)


@st.composite
def tokens(draw: st.DrawFn) -> Tokens:
    """Tokens whose parts are parts of the whole."""
    fresh, cached, write, said, reasoning = [draw(COUNTS) for _ in range(5)]
    return Tokens(fresh + cached + write, said + reasoning, cached, write, reasoning)


def a_price(since: date = JANUARY, **more: float) -> PriceSettings:
    return PriceSettings(since=since, **{"input": 10.0, "output": 40.0, **more})


def price_of(prices: dict[str, float], model: str) -> float | None:
    found = PriceList({name: a_price(input=rate) for name, rate in prices.items()})
    price = found.price(model, JULY)
    return None if price is None else price.input


def test_kinds_of_tokens_have_prices_of_their_own() -> None:
    """Each kind of token costs its own price, and is counted once. (S0-26, V-40)"""
    price = a_price(cached_input=2.0, cache_write=20.0, reasoning=80.0)
    used = Tokens(1_000_000, 500_000, 300_000, 200_000, 100_000)
    found = cost(used, price)
    assert found.cost_usd == pytest.approx(0.5 * 10 + 0.3 * 2 + 0.2 * 20 + 0.4 * 40 + 0.1 * 80)
    assert found.raw_usd == pytest.approx(0.8 * 10 + 0.2 * 20 + 0.4 * 40 + 0.1 * 80)


def test_prices_left_out_follow_from_the_others() -> None:
    """Without prices of their own, reading from the cache costs 10 % and writing 125 % of input,
    reasoning as much as output. (V-40)"""
    price = a_price()
    assert cost(Tokens(1_000_000, 0, 1_000_000), price).cost_usd == pytest.approx(1.0)
    assert cost(Tokens(1_000_000, 0, 0, 1_000_000), price).cost_usd == pytest.approx(12.5)
    assert cost(Tokens(0, 1_000_000, reasoning=1_000_000), price).cost_usd == pytest.approx(40.0)


def test_a_price_of_zero_is_a_price() -> None:
    """What is free costs nothing, and not what it costs by default. (S0-26)"""
    price = a_price(cached_input=0.0, cache_write=0.0, reasoning=0.0)
    assert cost(Tokens(5, 5, 2, 3, 5), price).cost_usd == 0
    assert PriceList({"local": a_price(input=0.0, output=0.0)}).cost(
        "local", Tokens(5, 5), JULY
    ) == Cost(0.0, 0.0)


Pricing = Callable[[Tokens, PriceSettings], Cost]


def check_laws(one: Tokens, other: Tokens, price: PriceSettings, cost: Pricing = cost) -> None:
    apart, both = (cost(one, price), cost(other, price)), cost(one.plus(other), price)
    assert both.cost_usd == pytest.approx(apart[0].cost_usd + apart[1].cost_usd)
    assert both.raw_usd == pytest.approx(apart[0].raw_usd + apart[1].raw_usd)
    for found in (*apart, both):
        assert 0 <= found.cost_usd <= found.raw_usd * (1 + 1e-12)
    assert both.cost_usd >= max(apart).cost_usd * (1 - 1e-12)


@given(tokens(), tokens(), PRICES)
def test_cost_laws(one: Tokens, other: Tokens, price: PriceSettings) -> None:
    """Costs add up, grow with the tokens, are never negative, and never more than those without
    discounts. (S0-26, V-40)"""
    check_laws(one, other, price)


def _discount_on_the_whole(used: Tokens, price: PriceSettings) -> Cost:
    """The mistake of a cached token that is also paid as a fresh one."""
    plain = msgspec.structs.replace(used, cached_input=0, cache_write=0)
    extra = cost(msgspec.structs.replace(used, output=0, reasoning=0), price).cost_usd
    return Cost(cost(plain, price).cost_usd + extra, cost(plain, price).raw_usd)


def _rounded(used: Tokens, price: PriceSettings) -> Cost:
    """The mistake of rounding each call to cents."""
    return Cost(*[round(amount, 2) for amount in cost(used, price)])


@pytest.mark.parametrize("wrong", [_discount_on_the_whole, _rounded])
def test_wrong_costs_are_seen(wrong: Pricing) -> None:
    """The laws do not hold for a cost that counts cached tokens twice or rounds. (S0-26)"""
    used = Tokens(1_337, 0, 1_000)
    with pytest.raises(AssertionError):
        check_laws(used, Tokens(0, 111), a_price(), wrong)


@given(COUNTS, COUNTS, COUNTS, COUNTS, COUNTS)
def test_tokens_that_make_no_sense_cost_something(a: int, b: int, c: int, d: int, e: int) -> None:
    """Parts larger than their whole give no negative cost. (S0-26)"""
    found = cost(Tokens(a, b, c, d, e), a_price())
    assert 0 <= found.cost_usd <= found.raw_usd * (1 + 1e-12)


def test_dated_names_match() -> None:
    """A model's dated editions have its price; other versions and sizes do not. (S0-26)"""
    prices = {"some-model-4": 1.0, "some-model-4-mini": 2.0}
    for edition in ("", "-20250929", "-2025-09-29", "@20250929", "-0613", "-latest", ":latest"):
        assert price_of(prices, f"some-model-4{edition}") == 1.0
        assert price_of(prices, f"some-model-4-mini{edition}") == 2.0
    for other in (
        "some-model-4-5",
        "some-model-4-nano",
        "some-model-41",
        "some-model",
        "some-model-4-",
    ):
        assert price_of(prices, other) is None


def test_the_longest_name_that_fits_counts() -> None:
    """An exact name goes before patterns, a longer pattern before a shorter one. (S0-26)"""
    prices = {
        "*": 1.0,
        "*some-*": 2.0,
        "*some-model-?": 3.0,
        "some-model-4": 4.0,
        "some-model-4-0613": 5.0,
    }
    assert price_of(prices, "some-model-4-0613") == 5.0
    assert price_of(prices, "some-model-4-0614") == 4.0
    assert price_of(prices, "Some-Model-4") == 4.0
    assert price_of(prices, "eu/some-model-5") == 3.0
    assert price_of(prices, "some-other") == 2.0
    assert price_of(prices, "another\nmodel") == 1.0
    assert price_of({"m[12]": 1.0}, "m2") == 1.0


@given(
    st.dictionaries(st.text("ab-*?1", min_size=1, max_size=6), RATES, max_size=5), st.text("ab-1")
)
def test_the_price_does_not_hang_on_the_order(prices: dict[str, float], model: str) -> None:
    """The price found is the same in whatever order prices are written. (S0-26)"""
    backwards = dict(reversed(prices.items()))
    assert price_of(prices, model) == price_of(backwards, model)


def test_prices_have_days() -> None:
    """The latest price that has begun counts; before the first there is none. (S0-26)"""
    prices = PriceList({"m": [a_price(JULY, input=5.0), a_price(JANUARY)]})
    found = [
        prices.price("m", day) for day in (date(2025, 12, 31), JANUARY, date(2026, 6, 30), JULY)
    ]
    assert [price and price.input for price in found] == [None, 10.0, 10.0, 5.0]
    assert prices.cost("m", Tokens(1), date(2025, 12, 31)) is None
    assert day_of(1_782_863_999_999_999_999) == date(2026, 6, 30)
    assert day_of(1_782_864_000_000_000_000) == JULY


def test_two_prices_of_one_day_are_refused() -> None:
    """Which of two prices from the same day counts is not guessed. (S0-26)"""
    with pytest.raises(ConfigError, match="same day"):
        PriceList({"m": [a_price(), a_price(input=1.0)]})


def test_prices_are_read_from_a_file() -> None:
    """A model has one price or several, each with its day. (S0-26)"""
    text = """
    [prices."one"]
    from = 2026-01-01
    input = 3
    output = 15
    [[prices."two*"]]
    from = "2026-01-01"
    input = 1
    output = 2.5
    [[prices."two*"]]
    from = 2026-07-01
    input = 0.5
    output = 2.5
    cached_input = 0.05
    """
    read = msgspec.convert(
        tomllib.loads(text)["prices"],
        dict[str, PriceSettings | tuple[PriceSettings, ...]],
        strict=False,
    )
    prices = PriceList(read)
    assert prices
    assert prices.cost("one", Tokens(1_000_000, 1_000_000), JULY) == Cost(18.0, 18.0)
    assert prices.cost("two-b", Tokens(1_000_000, 0, 1_000_000), JULY) == Cost(0.05, 0.5)


@pytest.mark.parametrize("wrong", ["input = -1", "input = inf", "inputs = 1", 'from = "soon"', ""])
def test_wrong_prices_are_refused(wrong: str) -> None:
    """A price that is negative, unknown or not dated is an error. (S0-26)"""
    fields = {"from": "from = 2026-01-01", "input": "input = 1", "output": "output = 1"}
    fields.pop("from" if not wrong else wrong.split(maxsplit=1)[0], None)
    text = "\n".join([*fields.values(), wrong])
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(tomllib.loads(text), PriceSettings, strict=False)


def test_there_are_no_prices_of_our_own() -> None:
    """Without settings no model has a price. (S0-26)"""
    prices: Prices = {}
    assert not PriceList(prices)
    assert not PriceList()
    assert PriceList().cost("any", Tokens(1, 1), JULY) is None
    assert not [name for name in vars(pricing) if name.startswith("DEFAULT")]
