"""What running code reports of its model calls, and where that is added up."""

import asyncio
import contextvars
import logging
import math
import threading
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.call import Outcome, Source, Tokens
from paceline.pricing import PriceList
from paceline.settings import PriceSettings
from paceline.testing.virtual_time import VirtualClock
from paceline.usage import Meter, Metering, Spent, current_meter, metered, report_usage, spent_on

PRICES = PriceList({"m": PriceSettings(since=date(2020, 1, 1), input=10, output=40)})


def a_meter(**more: Any) -> Meter:
    return Metering(PRICES, VirtualClock()).meter(**more)


def spent_by(meter: Meter) -> Spent:
    assert meter.spent is not None
    return meter.spent


def test_reports_of_one_execution_add_up() -> None:
    """Several model calls of one execution are one sum, of tokens and of money. (S0-26, V-40)"""
    with metered(a_meter()) as meter:
        assert report_usage("m", input=1_000_000, output=500_000, reasoning=100_000)
        assert report_usage("m-20260101", input=1_000_000, cached_input=1_000_000)
    assert meter.spent == Spent(Tokens(2_000_000, 500_000, 1_000_000, 0, 100_000), 31.0, 40.0, 2)
    assert current_meter.get() is None


def test_outside_a_call_nothing_happens() -> None:
    """Code that reports can run without a runtime. (S0-26)"""
    assert report_usage("m", input=1) is False


def test_input_that_leaves_out_the_cache_is_made_whole() -> None:
    """Of a provider that counts cached tokens apart, input is the sum, whether that is said or
    follows from the numbers. (V-40)"""
    with metered(a_meter()) as meter:
        report_usage("m", input=100, cached_input=30, cache_write=20, input_excludes_cache=True)
    assert spent_by(meter).tokens == Tokens(150, 0, 30, 20)
    with metered(a_meter()) as meter:
        report_usage("m", input=10, output=5, cached_input=30, cache_write=20, reasoning=7)
    assert spent_by(meter).tokens == Tokens(60, 12, 30, 20, 7)
    with metered(a_meter()) as meter:
        report_usage("m", input=50, cached_input=30, cache_write=20)
    assert spent_by(meter).tokens == Tokens(50, 0, 30, 20)


@given(st.tuples(*[st.integers(0, 10**6)] * 5), st.booleans())
def test_parts_are_parts_of_the_whole(counts: tuple[int, ...], apart: bool) -> None:
    """Whatever is reported, cached tokens are part of the input, reasoning of the output. (V-40)"""
    words = ("input", "output", "cached_input", "cache_write", "reasoning")
    with metered(a_meter()) as meter:
        report_usage(
            "m", cost_usd=0.0, input_excludes_cache=apart, **dict(zip(words, counts, strict=True))
        )
    tokens = spent_by(meter).tokens
    assert tokens.cached_input + tokens.cache_write <= tokens.input
    assert tokens.reasoning <= tokens.output


def test_a_model_without_a_price_is_counted_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """Of an unknown model the tokens count, the cost is not known, and that is told once. (S0-26)"""
    metering = Metering(PRICES, VirtualClock())
    for _ in range(2):
        with metered(metering.meter()) as meter:
            report_usage("new", input=5)
            report_usage("new", input=5)
        assert meter.spent == Spent(Tokens(10), None, None, 2, 2)
        with metered(meter):
            report_usage("m", input=1_000_000)
        assert meter.spent == Spent(Tokens(1_000_010), 10.0, 10.0, 3, 2)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 1
    assert '[prices."new"]' in told[0]


def test_a_known_cost_needs_no_price() -> None:
    """What the provider says it cost goes before the price table, and needs no tokens. (S0-26)"""
    with metered(a_meter()) as meter:
        assert report_usage("m", input=1_000_000, cost_usd=0.25)
        assert report_usage(cost_usd=0.5)
    assert meter.spent == Spent(Tokens(1_000_000), 0.75, 0.75, 2)


@pytest.mark.parametrize("wrong", [-1, 1.5, "7", 10**13, math.nan, [], object()])
def test_a_wrong_count_is_left_out(wrong: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A count that cannot be is logged and left out, and breaks no agent. (S0-26)"""
    with metered(a_meter()) as meter:
        assert report_usage("m", input=wrong) is False
        assert meter.spent is None
    assert "left out" in caplog.text


@pytest.mark.parametrize("wrong", [-0.1, "7", math.nan, math.inf])
def test_a_wrong_cost_is_left_out(wrong: Any) -> None:
    """A cost that is no amount is left out. (S0-26)"""
    with metered(a_meter()) as meter:
        assert report_usage("m", input=1, cost_usd=wrong) is False
    assert meter.spent is None


def test_missing_counts_are_none() -> None:
    """Providers leave counts out: None is 0, and nothing at all is no report. (S0-26)"""
    with metered(a_meter()) as meter:
        assert report_usage("m", input=7, output=None, cached_input=None, cache_write=None)
        assert report_usage("m") is False
        assert report_usage(None, input=1)  # type: ignore[arg-type]
    assert spent_by(meter).reports == 2
    assert spent_by(meter).tokens == Tokens(8)


async def test_tasks_report_to_the_call_they_are_part_of() -> None:
    """Tasks inherit the meter; a meter of their own keeps theirs apart. (S0-26)"""
    outer, inner = a_meter(), a_meter()

    async def within() -> None:
        with metered(inner):
            report_usage("m", input=2)

    async def beside() -> None:
        report_usage("m", input=1)

    with metered(outer):
        await asyncio.gather(*[asyncio.create_task(each()) for each in (beside, within, beside)])
    assert (spent_by(outer).tokens.input, spent_by(inner).tokens.input) == (2, 2)


def test_threads_lose_nothing() -> None:
    """Reports of several threads to one meter are all counted. (S0-26, V-40)"""
    noted: list[Spent] = []
    with metered(a_meter(noted=lambda _, spent: noted.append(spent))) as meter:
        contexts = [contextvars.copy_context() for _ in range(8)]

    def work(context: contextvars.Context) -> None:
        for _ in range(500):
            context.run(report_usage, "m", input=3, cached_input=1)

    # Inside the meter's context, as agents' threads are.
    threads = [threading.Thread(target=work, args=(context,)) for context in contexts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert spent_by(meter).tokens == Tokens(12_000, 0, 4_000)
    assert spent_by(meter).reports == len(noted) == 4_000


def test_each_report_is_passed_on_at_once() -> None:
    """Who keeps sums hears of every model call when it is reported, with its model. (S0-26)"""
    noted: list[tuple[str, Spent]] = []
    with metered(a_meter(noted=lambda model, spent: noted.append((model, spent)))):
        report_usage("x" * 500, input=1, cost_usd=1.0)
        assert noted == [("x" * 200, Spent(Tokens(1), 1.0, 1.0, 1))]


def outcome(**more: Any) -> Outcome:
    return Outcome("1", "echo", **{"source": Source.EXECUTED, **more})


def test_what_a_call_cost() -> None:
    """What was measured goes before the plan's price, which counts for each attempt; what was not
    executed cost nothing. (S0-26, V-40)"""
    assert spent_on(outcome(attempts=2), 0.5) == Spent(cost_usd=1.0, raw_usd=1.0)
    assert spent_on(outcome(attempts=2, cost_usd=0.25, raw_usd=0.75), 0.5) == Spent(
        cost_usd=0.25, raw_usd=0.75
    )
    assert spent_on(outcome(attempts=1, tokens=Tokens(7), unpriced=1), 0.5) == Spent(
        Tokens(7), 0.5, 0.5, 0, 1
    )
    assert spent_on(outcome(attempts=0), 0.5) == Spent()
    assert spent_on(outcome(source=Source.HOT, cost_usd=1.0), 0.5) == Spent()


def test_unknown_models_are_told_of_within_bounds(caplog: pytest.LogCaptureFixture) -> None:
    """Made-up names of models fill neither memory nor the log without end. (S0-26)"""
    caplog.set_level(logging.WARNING)
    metering = Metering(PriceList(), VirtualClock())
    for number in range(1_100):
        metering.spent(f"model-{number}", Tokens(1))
    assert len(caplog.records) == 1_000
