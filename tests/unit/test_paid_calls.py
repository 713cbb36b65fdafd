"""What calls cost on the call path: reported, counted, refused, saved; over a restart too."""

import asyncio
import threading
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import pytest

from paceline.call import Source, Tokens
from paceline.cli.budget import budget
from paceline.cli.place import Place
from paceline.config import load
from paceline.errors import BudgetExceededError, Category, StorageError
from paceline.path.paying import Paying
from paceline.pricing import PriceList
from paceline.runtime import Runtime
from paceline.settings import PriceSettings, Settings
from paceline.testing.virtual_time import VirtualClock
from paceline.usage import report_usage

PRICE = {"from": "2020-01-01", "input": 10.0, "output": 40.0}
TOKENS = Tokens(100_000, 25_000, 50_000)
COST_USD, RAW_USD = 1.55, 2.0


def settings(**budgets: Mapping[str, object]) -> Settings:
    return load(
        overrides={
            "prices": {"m": PRICE},
            "budgets": budgets,
            "agents": {"watch": False},
            "hostexec": {"mode": "off"},
        }
    )


def a_runtime(tmp_path: Path, **budgets: Mapping[str, object]) -> Runtime:
    runtime = Runtime(settings(**budgets), agents=[], home=tmp_path / "home", environ={})

    @runtime.agent(name="think", effect="pure", cache_ttl=60)
    async def think(query: str) -> str:
        report_usage("m-20260101", input=50_000, output=25_000, cached_input=50_000,
                     input_excludes_cache=True)  # fmt: skip
        return query.upper()

    @runtime.agent(name="threaded")
    def threaded(query: str) -> str:
        assert threading.current_thread() is not threading.main_thread()
        report_usage("m", input=100_000)
        report_usage("unknown", input=1)
        if query == "fail":
            raise ValueError(query)
        return query

    @runtime.agent(name="outer")
    async def outer(query: str) -> str:
        report_usage("m", input=1)
        return str((await runtime.run("think", query)).unwrap())

    @runtime.agent(name="free")
    async def free(query: str) -> str:
        return query

    @runtime.agent(name="declared", cost_usd=0.5)
    async def declared(query: str) -> str:
        return query

    return runtime


def usage_of(runtime: Runtime, name: str) -> Any:
    return runtime.metrics.snapshot().agents[name].ever.usage


async def test_a_running_agent_tells_its_tokens(tmp_path: Path) -> None:
    """What an agent reports while it runs is in its outcome, with its price. (S0-26, V-40)"""
    async with a_runtime(tmp_path) as runtime:
        outcome = await runtime.run("think", "a")
        assert (outcome.tokens, outcome.cost_usd, outcome.raw_usd) == (TOKENS, COST_USD, RAW_USD)
        hit = await runtime.run("think", "a")
        assert (hit.source, hit.tokens, hit.cost_usd) == (Source.HOT, None, None)
        assert hit.saved_usd == COST_USD
        usage = usage_of(runtime, "think")
        assert (usage.cost_usd, usage.raw_usd, usage.saved_usd) == (COST_USD, RAW_USD, COST_USD)
        assert usage.cached_input == 50_000


async def test_what_a_call_inside_uses_is_its_own(tmp_path: Path) -> None:
    """A call made inside a call is not counted twice. (S0-26)"""
    async with a_runtime(tmp_path) as runtime:
        outcome = await runtime.run("outer", "a")
        assert outcome.tokens == Tokens(1)
        assert usage_of(runtime, "think").input == 100_000


async def test_failures_are_paid_for_too(tmp_path: Path) -> None:
    """What an agent in a thread reported before it failed counts; so does what has no price.
    (S0-26)"""
    async with a_runtime(tmp_path) as runtime:
        outcome = await runtime.run("threaded", "fail")
        assert not outcome.ok
        assert (outcome.tokens, outcome.cost_usd, outcome.unpriced) == (Tokens(100_001), 1.0, 1)
        assert usage_of(runtime, "threaded").unpriced == 1


async def test_a_budget_refuses_calls_that_cost_but_no_hit(tmp_path: Path) -> None:
    """With a budget used up, paid calls are refused before they run, while hits and what is free
    are served. (S0-26, V-40)"""
    async with a_runtime(tmp_path, daily={"limit_usd": 2}) as runtime:
        assert (await runtime.run("think", "a")).ok
        refused = await runtime.run("think", "b")
        assert isinstance(refused.error, BudgetExceededError)
        assert refused.error.category is Category.EXHAUSTED
        assert refused.attempts == 0
        assert (await runtime.run("think", "a")).source is Source.HOT
        assert (await runtime.run("free", "a")).ok
        assert not (await runtime.run("declared", "a")).ok
        figures = runtime.metrics.snapshot().agents["think"].ever
        assert (figures.rejected, figures.errors, figures.hits) == (1, 0, 1)


async def test_a_refusal_is_that_of_the_user_it_is_for(tmp_path: Path) -> None:
    """Who waits for the same work as a user whose budget is used up still gets it. (S0-26)"""
    each = {"limit_usd": 1, "per": "user"}
    async with a_runtime(tmp_path, each=each) as runtime:

        @runtime.agent(name="shared", effect="pure", scope="global", cost_usd=0.6)
        async def shared(query: str) -> str:
            await asyncio.sleep(0)
            return query

        assert (await runtime.run("shared", "first", user="ada")).ok
        ada, bob, eve, ann = await asyncio.gather(
            *[runtime.run("shared", "x", user=user) for user in ("ada", "bob", "eve", "ada")]
        )
        assert isinstance(ada.error, BudgetExceededError)
        assert bob.ok
        assert eve.ok
        assert {bob.source, eve.source} <= {Source.EXECUTED, Source.JOINED, Source.HOT}
        assert isinstance(ann.error, BudgetExceededError)


async def test_budgets_survive_a_restart(tmp_path: Path) -> None:
    """After a restart, what the history has of the day is still spent. (S0-26)"""
    budget: dict[str, dict[str, object]] = {
        "daily": {"limit_usd": 3},
        "tokens": {"limit_tokens": 10**9, "window": "month"},
    }
    async with a_runtime(tmp_path, **budget) as runtime:
        await runtime.run("think", "a", user="ada")
        await runtime.run("threaded", "x")
        before = [each.spent for each in runtime.paying.spending.standings()]
        assert before[0].nano_usd == 3_000_000_000
    async with a_runtime(tmp_path, **budget) as runtime:
        assert [each.spent for each in runtime.paying.spending.standings()] == before
        assert not (await runtime.run("think", "b")).ok
        hit = await runtime.run("think", "a", user="ada")
        assert (hit.source, hit.saved_usd) == (Source.WARM, COST_USD)


async def test_prices_of_the_settings_are_those_of_the_runtime() -> None:
    """Prices and budgets are read from any source of settings. (S0-26)"""
    read = settings(daily={"limit_usd": 2})
    wanted = PriceSettings(since=date(2020, 1, 1), input=10.0, output=40.0)
    assert read.prices == {"m": wanted}
    assert PriceList(read.prices).price("m", date(2026, 1, 1)) == wanted


async def test_a_history_that_cannot_be_read_stops_nobody(tmp_path: Path) -> None:
    """Budgets begin anew, and it is said, where the past cannot be read. (S0-26)"""

    class Broken:
        def bills(self, since_ns: int) -> Any:
            raise StorageError("it is broken")

    told: list[str] = []
    read = settings(daily={"limit_usd": 2})
    paying = await Paying.open(
        read, VirtualClock(), Broken(), lambda what, _: told.append(what)  # type: ignore[arg-type]
    )  # fmt: skip
    assert told == ["what was spent before is not known, so budgets begin anew"]
    assert paying.spending.standings()[0].share == 0


def test_the_command_shows_budgets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`paceline budget` shows how far each budget is used, by the history. (S0-26)"""
    file = tmp_path / "paceline.toml"
    file.write_text(
        "[budgets.daily]\nlimit_usd = 3\n[budgets.runs]\nlimit_usd = 1\nwindow = 'run'\n"
    )

    async def spend() -> None:
        async with a_runtime(tmp_path) as runtime:
            await runtime.run("think", "a")

    asyncio.run(spend())
    place = Place({}, tmp_path, config=file, home=tmp_path / "home")
    assert budget(place, as_json=True) == 0
    shown = msgspec.json.decode(capsys.readouterr().out)
    assert (shown["budget"], shown["of"], shown["spent_usd"], shown["limit_usd"]) == (
        "daily", "all", 2.0, 3.0,
    )  # fmt: skip
    assert shown["spent_tokens"] == 125_000
    assert shown["share"] == pytest.approx(2 / 3)
    assert budget(place, as_json=False) == 0
    text = capsys.readouterr().out
    assert "$2.0000" in text
    assert "$3.00 a day" in text
    assert "67%" in text
