"""What is cached: looked at, taken away and made ahead, through `runtime.results`."""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from paceline import Caller, Effect, Plan, Runtime, Source
from paceline.agents.spec import AgentSpec
from paceline.call import Call, Outcome, Priority
from paceline.codec import encode
from paceline.config import load
from paceline.errors import (
    Category,
    InvalidInputError,
    RuntimeClosedError,
    UsageError,
)
from paceline.history.sqlite import SqliteReader
from paceline.results import WarmCall
from paceline.results.ahead import Warmer, worth_most
from paceline.settings import Settings
from paceline.testing.virtual_time import VirtualClock
from paceline.testing.virtual_time import run as run_virtual
from tests.recorded import row

Make = Callable[..., Runtime]


def settings(**cache: object) -> Settings:
    return load(
        overrides={"agents": {"watch": False}, "hostexec": {"mode": "off"}, "cache": dict(cache)}
    )


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Runtimes over one state directory, as processes would have them."""

    def runtime(*, persist: bool = True, clock: Any = None, **cache: object) -> Runtime:
        return Runtime(
            settings(**cache),
            agents=[],
            home=tmp_path / "state",
            persist=persist,
            environ={},
            clock=clock,
        )

    return runtime


async def until(true: Callable[[], object]) -> None:
    """Lets others run until something is true."""
    while not true():  # noqa: ASYNC110 (what is waited for has no event)
        await asyncio.sleep(0)


class Agents:
    """Agents of a runtime that count what they do."""

    def __init__(self, runtime: Runtime, **options: Any) -> None:
        self.runs: list[str] = []
        self.priorities: list[Priority] = []
        self.going = 0
        self.most = 0
        self.open = asyncio.Event()
        self.open.set()
        reading: Any = {"effect": "read", "cache_ttl": 60, "scope": "global"} | options

        @runtime.agent("reads", **reading)
        async def reads(query: str, call: Call) -> str:
            self.runs.append(query)
            self.priorities.append(call.priority)
            self.going += 1
            self.most = max(self.most, self.going)
            try:
                await self.open.wait()
            finally:
                self.going -= 1
            return f"{query} {len(self.runs)}"

        @runtime.agent("writes", effect="write")
        async def writes(query: str) -> str:
            self.runs.append(f"!{query}")
            return query

        @runtime.agent("unknown")
        async def unknown(query: str) -> str:
            self.runs.append(f"?{query}")
            return query


# -- looking ------------------------------------------------------------------------------------


async def test_figures_count_each_request_once(make: Make) -> None:
    """The hit rate is of requests, whichever tier answers; by tier it adds up to that; seconds,
    entries and bytes are those of what is kept. (S0-75, S0-76)"""
    async with make() as first:
        Agents(first)
        for query in ("a", "b", "a"):
            await first.run("reads", query)
    async with make() as runtime:
        Agents(runtime)
        for query in ("a", "a", "a", "c"):
            await runtime.run("reads", query)
        stats = await runtime.results.stats()
        hour = await runtime.results.stats(window_s=3_600)
    assert stats.totals.requests == 4
    assert stats.hit_rate == pytest.approx(0.75)
    assert stats.tier_rates == {"hot": 0.5, "warm": 0.25, "cold": 0.0}
    assert stats.hot.entries == 2
    assert stats.hot.bytes > 0
    assert stats.warm is not None
    assert stats.warm.entries == 3
    assert stats.warm.bytes > 0
    assert set(stats.hot.removed) >= {"capacity", "expired"}
    assert stats.totals.saved_ns > 0
    assert hour.totals == stats.totals


def test_figures_of_a_window_leave_out_what_was_before(make: Make) -> None:
    """Over the last minute only what was counted in about that time is shown. (S0-76)"""

    async def main() -> None:
        async with make(persist=False, clock=VirtualClock()) as runtime:
            Agents(runtime, cache_ttl=10_000)
            for _ in range(5):
                await runtime.run("reads", "a")
            await asyncio.sleep(300)
            await runtime.run("reads", "a")
            lately = (await runtime.results.stats(window_s=60)).totals
            always = (await runtime.results.stats()).totals
            assert (lately.requests, lately.hits) == (1, 1)
            assert (always.requests, always.hits) == (6, 5)

    run_virtual(main())


async def test_what_is_kept_is_listed_once(make: Make) -> None:
    """Each result is listed once, with its tiers, who may see it, what was asked, tags, size,
    lifetime and cost; in the order asked for, and of one agent if so asked."""
    async with make() as first:
        Agents(first)
        await first.run("reads", "in the file")
    async with make() as runtime:
        Agents(runtime, effect=Effect.read("r"), scope=None)
        await runtime.run("reads", "password=hunter22", user="ada")

        @runtime.agent(effect="pure", cache_ttl=5)
        async def large(query: str) -> list[str]:
            return [query] * 100

        await runtime.run("large", "x", user="grace")
        newest, secret, old = await runtime.results.entries(order="stored")
        assert (newest.name, newest.tiers, newest.scope) == ("large", ("hot", "warm"), "user/grace")
        assert (secret.tags, secret.scope) == (("r",), "user/ada")
        assert "hunter22" not in repr(secret)
        assert (old.name, old.tiers, old.summary) == ("reads", ("warm",), "in the file")
        assert (await runtime.results.entries(1, "size"))[0].key == newest.key
        assert (await runtime.results.entries(1, "expiry"))[0].key == newest.key
        assert newest.remaining_s is not None
        assert 0 < newest.remaining_s <= 5
        only = await runtime.results.entries(agent="reads")
        assert {one.key for one in only} == {secret.key, old.key}
        assert {one.key for one in await runtime.results.entries(order="cost")} == {
            newest.key,
            secret.key,
            old.key,
        }


async def test_without_a_file_memory_is_listed(make: Make) -> None:
    """With nothing but memory results are listed, shown and removed too."""
    async with make(persist=False) as runtime:
        Agents(runtime)
        await runtime.run("reads", "a")
        (one,) = await runtime.results.entries()
        assert (one.tiers, one.age_s) == (("hot",), None)
        assert (await runtime.results.get(one.key[:10])).value == "a 1"
        assert (await runtime.results.stats()).warm is None
        assert await runtime.results.remove(key=one.key) == 1
        assert await runtime.results.entries() == []


async def test_a_result_is_shown_by_the_beginning_of_its_key(make: Make) -> None:
    """A result is found by the first digits of its key, an odd number of them too, in memory and
    in the file; what is not clear is an error that says so."""
    async with make() as first:
        Agents(first)
        for query in map(str, range(40)):
            await first.run("reads", query)
    async with make() as runtime:
        Agents(runtime)
        one = (await runtime.results.entries())[0]
        for digits in (9, 10, len(one.key)):
            shown = await runtime.results.get(one.key[:digits])
            assert shown.result.key == one.key
            assert shown.value == (await runtime.run("reads", one.summary)).value
        beginnings = Counter(kept.key[0] for kept in await runtime.results.entries())
        with pytest.raises(UsageError, match="several"):
            await runtime.results.get(beginnings.most_common(1)[0][0])
        with pytest.raises(UsageError, match="no key"):
            await runtime.results.get("")
        with pytest.raises(UsageError, match="empty prefix"):
            await runtime.results.remove(prefix="")
        with pytest.raises(UsageError, match="no result"):
            await runtime.results.get("0" * 64)
        with pytest.raises(UsageError, match="beginning of a key"):
            await runtime.results.get("xyz")


# -- taking away --------------------------------------------------------------------------------


async def test_clearing_an_agent_reaches_every_process(make: Make) -> None:
    """Once `clear` has returned no process finds a result of that agent of before, though it has
    it in memory; those of other agents stay. (S0-78, S1-53)"""
    async with make() as one, make() as other:
        for runtime in (one, other):
            Agents(runtime)

            @runtime.agent("pure", effect="pure", scope="global", cache_ttl=60)
            async def pure(query: str) -> str:
                return query

        for runtime in (one, other):
            assert (await runtime.run("reads", "a")).ok
            assert (await runtime.run("pure", "a")).ok
        assert (await other.run("reads", "a")).source is Source.HOT
        assert await one.results.clear("reads") == 1
        assert [kept.name for kept in await one.results.entries()] == ["pure"]
        assert (await other.run("reads", "a")).source is Source.EXECUTED
        assert (await other.run("pure", "a")).source is Source.HOT
        assert (await one.run("pure", "a")).source is Source.HOT


async def test_a_result_of_before_a_clear_is_never_found(make: Make) -> None:
    """What was being computed while its agent was cleared goes to who waits for it, and is not
    found by those who come later. (S0-78)"""
    async with make() as runtime:
        agents = Agents(runtime)
        agents.open.clear()
        waiting = asyncio.create_task(runtime.run("reads", "a"))
        await until(lambda: agents.runs)
        await runtime.results.clear("reads")
        agents.open.set()
        assert (await waiting).value == "a 1"
        assert (await runtime.run("reads", "a")).source is Source.EXECUTED


async def test_clearing_all_reaches_every_process(make: Make) -> None:
    """`clear` without an agent leaves nothing to find, in any process, of pure agents neither."""
    async with make() as one, make() as other:
        for runtime in (one, other):
            Agents(runtime, effect="pure")
            await runtime.run("reads", "a")
        assert await one.results.clear() == 1
        assert (await one.results.stats()).hot.entries == 0
        assert (await other.run("reads", "a")).source is Source.EXECUTED


async def test_invalidation_takes_no_search_and_reaches_every_process(make: Make) -> None:
    """A tag makes stale what was read under it, everywhere, and nothing else; `free` then gives
    back its room. (S0-78)"""
    async with make() as one, make() as other:
        for runtime in (one, other):

            @runtime.agent("a", effect=Effect.read("docs"), cache_ttl=60, scope="global")
            async def a(query: str) -> str:
                return query

            @runtime.agent("b", effect=Effect.read("mail"), cache_ttl=60, scope="global")
            async def b(query: str) -> str:
                return query

            await runtime.run("a", "x")
            await runtime.run("b", "x")
        one.results.invalidate("docs")
        assert await one.results.free("docs") == 1
        assert [kept.name for kept in await one.results.entries()] == ["b"]
        assert await one.results.free("agent:b") == 1
        sources = [(await other.run(name, "x")).source for name in ("a", "b")]
        assert sources == [Source.EXECUTED, Source.HOT]


async def test_agents_are_cleared_by_the_beginning_of_their_name(make: Make) -> None:
    """`remove(prefix=)` clears all agents whose name begins so, everywhere, and no other."""
    async with make() as one, make() as other:
        for runtime in (one, other):
            for name in ("mail_list", "mail_read", "files"):

                @runtime.agent(name, effect="pure", scope="global", cache_ttl=60)
                async def agent(query: str) -> str:
                    return query

                await runtime.run(name, "x")
        assert await one.results.remove(prefix="mail") == 2
        sources = {n: (await other.run(n, "x")).source for n in ("mail_list", "mail_read", "files")}
        assert sources == {
            "mail_list": Source.EXECUTED,
            "mail_read": Source.EXECUTED,
            "files": Source.HOT,
        }
        with pytest.raises(InvalidInputError):
            await one.results.remove()


def test_one_result_is_removed_everywhere_within_seconds(make: Make) -> None:
    """`remove(key=)` takes one result from here at once, and within five seconds from the memory
    of other processes of the state directory. (S0-78)"""

    async def main() -> None:
        clock = VirtualClock()
        async with make(clock=clock) as one, make(clock=clock) as other:
            for runtime in (one, other):
                Agents(runtime, cache_ttl=10_000)
                await runtime.run("reads", "a")
                await runtime.run("reads", "b")
            (gone,) = [kept for kept in await one.results.entries() if kept.summary == "a"]
            assert await one.results.remove(key=gone.key[:12]) == 1
            await asyncio.sleep(5.1)
            assert (await other.run("reads", "b")).source is Source.WARM
            assert (await other.run("reads", "a")).source is Source.EXECUTED
            assert (await one.run("reads", "b")).source is Source.HOT

    run_virtual(main())


async def test_a_replay_shares_with_the_session_it_repeats(make: Make) -> None:
    """After `begin` a session finds what another session of the same world read with the same
    writes before."""
    async with make() as runtime:
        runs: list[str] = []

        def plan(query: str, context: object) -> Plan:
            del context
            write = query.startswith("w")
            effect = Effect.write("w:x") if write else Effect.read("w:x")
            return Plan(effect, ttl_s=None if write else 60.0, world="w")

        async def run(query: str) -> str:
            runs.append(query)
            return query

        runtime.registry.add(
            AgentSpec(name="box", run=run, is_async=True, cacheable=True, planner=plan)
        )
        for session in ("first", "second"):
            runtime.results.begin("w", session)
            for query in ("r1", "w1", "r1"):
                await runtime.run("box", query, caller=Caller(session=session))
        assert runs == ["r1", "w1", "r1", "w1"]


# -- making ahead -------------------------------------------------------------------------------


async def test_results_are_made_ahead_once_and_at_low_priority(make: Make) -> None:
    """Calls of a list are run behind what anybody waits for, each result once; what is there already
    is not run, and none of it counts as a request. (S1-52)"""
    async with make() as runtime:
        agents = Agents(runtime)
        await runtime.run("reads", "a")
        report = await runtime.results.warm([("reads", query) for query in "abcb"])
        assert (report.warmed, report.present, report.refused, report.failed) == (2, 2, 0, 0)
        assert sorted(agents.runs) == ["a", "b", "c"]
        assert agents.priorities == [Priority.NORMAL, Priority.LOW, Priority.LOW]
        assert (await runtime.run("reads", "c")).source is Source.HOT
        totals = (await runtime.results.stats()).totals
        assert (totals.requests, totals.hits, totals.ahead) == (2, 1, 3)


async def check_nothing_harmful_is_run(make: Make) -> None:
    async with make(persist=False) as runtime:
        agents = Agents(runtime, cache_ttl=0)
        report = await runtime.results.warm(
            [("writes", "a"), ("unknown", "b"), ("reads", "c"), ("writes", "d")]
        )
        assert report.refused == 4
        assert agents.runs == []


async def test_nothing_that_could_do_harm_is_run_ahead(make: Make) -> None:
    """A call that writes, or may, or whose result is not kept, is refused and never executed.
    (S1-52)"""
    await check_nothing_harmful_is_run(make)


async def test_the_check_notices_who_does_not_ask_for_the_effect(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Running ahead whatever has no result yet is noticed."""

    async def one(self: Any, wanted: WarmCall) -> str:
        call, job = self._ahead.prepare(wanted)
        await self._ahead.run(call, job)
        return "warmed"

    monkeypatch.setattr(Warmer, "_one", one)
    with pytest.raises(AssertionError):
        await check_nothing_harmful_is_run(make)


async def test_what_cannot_be_run_is_in_the_report(make: Make) -> None:
    """Unknown agents, empty inputs and failures are counted and told; the others are run."""
    async with make() as runtime:
        Agents(runtime)

        @runtime.agent(effect="read", cache_ttl=60)
        async def failing(query: str) -> str:
            raise ValueError(query)

        report = await runtime.results.warm(
            [("nobody", "x"), ("reads", " "), ("failing", "no"), ("reads", "yes")]
        )
        assert (report.warmed, report.failed) == (1, 3)
        assert len(report.trouble) == 3
        assert any("failing: failing failed: ValueError: no" in text for text in report.trouble)
        with pytest.raises(InvalidInputError):
            await runtime.results.warm([], concurrency=0)
        assert (await runtime.results.warm([])).warmed == 0


async def test_making_ahead_is_bounded_and_can_be_cancelled(make: Make) -> None:
    """No more calls run at once than allowed; cancelling ends those that run and starts no more.
    (S1-52)"""
    async with make(persist=False) as runtime:
        agents = Agents(runtime)
        agents.open.clear()
        before = asyncio.all_tasks()
        calls = (("reads", str(n)) for n in range(1_000))
        warming = asyncio.create_task(runtime.results.warm(calls, concurrency=3))
        await until(lambda: agents.going >= 3)
        for _ in range(20):
            await asyncio.sleep(0)
        assert (agents.going, agents.most) == (3, 3)
        warming.cancel()
        with pytest.raises(asyncio.CancelledError):
            await warming
        await until(lambda: not agents.going)
        assert len(agents.runs) == 3
        assert asyncio.all_tasks() <= before


async def test_a_call_joins_what_is_being_made_ahead(make: Make) -> None:
    """Who asks for what is being made ahead waits for that, and keeps it going when the warming
    is cancelled. (S1-52)"""
    async with make() as runtime:
        agents = Agents(runtime)
        agents.open.clear()
        warming = asyncio.create_task(runtime.results.warm([("reads", "a")]))
        await until(lambda: agents.runs)
        asking = asyncio.create_task(runtime.run("reads", "a"))
        for _ in range(5):
            await asyncio.sleep(0)
        warming.cancel()
        with pytest.raises(asyncio.CancelledError):
            await warming
        agents.open.set()
        outcome = await asking
        assert (outcome.source, outcome.value) == (Source.JOINED, "a 1")
        assert agents.runs == ["a"]


async def test_making_ahead_is_for_somebody(make: Make) -> None:
    """Results that are made for a user are that user's, and nobody else's. (S1-54)"""
    async with make() as runtime:
        Agents(runtime, scope=None)
        await runtime.results.warm([("reads", "a")], user="ada")
        await runtime.results.warm([WarmCall("reads", "b", Caller("grace"))])
        found = [
            (await runtime.run("reads", query, user=user)).source
            for query, user in (("a", "ada"), ("a", "grace"), ("b", "grace"), ("b", "ada"))
        ]
        assert found == [Source.HOT, Source.EXECUTED, Source.HOT, Source.EXECUTED]


async def test_closing_does_not_wait_for_what_is_made_ahead(make: Make) -> None:
    """A runtime that closes cancels what is made ahead: nobody asked for it."""
    async with make(persist=False) as runtime:
        agents = Agents(runtime)
        agents.open.clear()
        warming = asyncio.create_task(runtime.results.warm([("reads", "a"), ("reads", "b")]))
        await until(lambda: agents.going >= 2)
    report = await warming
    assert (report.warmed, report.failed) == (0, 2)
    assert agents.going == 0


async def test_the_calls_worth_most_are_made_again(make: Make) -> None:
    """From the history those calls are made again that would have saved most time, uses times
    what executing takes, for whom they were made; never what was made ahead itself. (S1-52)"""
    took = {"quick": 0.001, "slow": 0.05, "often": 0.02}
    clock = VirtualClock()
    async with make(clock=clock) as first:

        @first.agent("reads", effect="read", cache_ttl=60)
        async def reads(query: str) -> str:
            clock.advance(took[query])
            return query

        for query, user, times in (("quick", "ada", 9), ("slow", "ada", 1), ("often", "bob", 9)):
            for _ in range(times):
                await first.run("reads", query, user=user)
        await first.run("reads", "slow", user="bob", use_cache=False)
        await first.results.clear()
        report = await first.results.warm_from_history(top=1)
        assert (report.warmed, report.failed) == (1, 0)
        assert (await first.run("reads", "often", user="bob")).source is Source.HOT
        await first.results.clear()
        assert (await first.results.warm_from_history(top=20)).warmed == 4
        assert (await first.run("reads", "slow", user="ada")).source is Source.HOT
        assert (await first.run("reads", "slow", user="bob")).source is Source.HOT
        clock.advance(3_600)
        for _ in range(3):  # what is made ahead gives itself no weight
            await first.results.clear()
            assert (await first.results.warm_from_history(window_s=600)).warmed == 0


def test_what_a_fallback_answered_is_not_worth_making_ahead() -> None:
    """Calls that fallbacks answered had no result, however long they took. (S1-52, S0-81)"""
    data = encode({"query": "x"})
    asked = {
        "input": '{"query":"x"}',
        "input_hash": hashlib.blake2b(data, digest_size=16).hexdigest(),
    }
    records = [row("2", 2_000, **asked), row("1", 1_000, **asked)]
    assert [one.input for one in worth_most(records)] == ["x"]
    fell_back = [msgspec.structs.replace(one, instead_of=Category.NETWORK) for one in records]
    assert list(worth_most(fell_back)) == []


async def test_what_may_not_be_made_ahead_takes_no_place(make: Make) -> None:
    """The calls worth most are chosen among those that may be made ahead: however much writing,
    what is not kept and what is gone would have saved, it takes no place, is not run and not
    counted. (S1-52)"""
    clock = VirtualClock()
    async with make(clock=clock) as runtime:
        agents = Agents(runtime)

        @runtime.agent("gone", effect="read", cache_ttl=60, scope="global")
        async def gone(query: str) -> str:
            clock.advance(100)
            return query

        @runtime.agent("heavy", effect="write")
        async def heavy(query: str) -> str:
            agents.runs.append(f"!{query}")
            clock.advance(100)
            return query

        @runtime.agent("light", effect="read", cache_ttl=60, scope="global")
        async def light(query: str) -> str:
            clock.advance("abc".index(query) + 1)
            return query

        for number in range(5):
            for name in ("heavy", "gone"):
                await runtime.run(name, f"{name} {number}", user="ada")
        for query in ("a", "b", "c"):
            await runtime.run("light", query)
    async with make(clock=clock) as later:
        agents = Agents(later)
        later.agent("heavy", effect="write")(heavy)
        later.agent("light", effect="read", cache_ttl=60, scope="global")(light)
        await later.results.clear()
        report = await later.results.warm_from_history(top=2)
        assert (report.warmed, report.refused, report.failed) == (2, 0, 0)
        assert (await later.run("light", "c")).source is Source.HOT
        assert (await later.run("light", "b")).source is Source.HOT
        assert (await later.run("light", "a")).source is Source.EXECUTED
        assert (await later.results.warm_from_history(top=0)).warmed == 0
    assert agents.runs == []


async def test_what_was_not_recorded_in_full_is_not_made_again(make: Make, tmp_path: Path) -> None:
    """An input with a secret, one that JSON does not give back as it was, failed calls and those
    of nobody's session are not made again. (S1-52)"""
    async with make(clock=(clock := VirtualClock())) as runtime:
        runs: list[str] = []

        @runtime.agent("reads", effect="read", cache_ttl=60)
        async def reads(query: str, extra: object = None) -> str:
            runs.append(query)
            clock.advance(1)
            if query == "fails":
                raise ValueError("no")
            return query

        await runtime.run("reads", "password=hunter22", user="ada")
        await runtime.run("reads", "tuple", user="ada", context={"extra": (1, 2)})
        await runtime.run("reads", "list", user="ada", context={"extra": [1, 2]})
        await runtime.run("reads", "fails", user="ada")
        await runtime.run("reads", "nobody")
        await runtime.results.clear()
        runs.clear()
        report = await runtime.results.warm_from_history()
        assert runs == ["list"]
        assert (report.warmed, report.failed) == (1, 0)
    ahead = [r for r in SqliteReader(tmp_path / "state" / "history.db").query() if "-ahead" in r.id]
    assert [(r.user, r.source) for r in ahead] == [("ada", Source.EXECUTED)]


async def test_without_a_history_warming_from_it_says_so(make: Make) -> None:
    """Where calls are not recorded, warming from the history is an error with a next step."""
    async with make(persist=False) as runtime:
        with pytest.raises(UsageError) as said:
            await runtime.results.warm_from_history()
        assert "history.enabled" in said.value.next_step


async def test_results_need_an_open_runtime(make: Make) -> None:
    """Before a runtime is opened its results are an error; making ahead after it is closed fails."""
    runtime = make(persist=False)
    with pytest.raises(RuntimeClosedError):
        _ = runtime.results
    async with runtime:
        Agents(runtime)
    assert (await runtime.results.warm([("reads", "a")])).failed == 1


async def test_memory_is_filled_from_the_file_at_the_start(make: Make) -> None:
    """With `warm_start_entries` results are hot soon after opening, no more than asked for, and
    with the lifetime they have left. (S1-52)"""
    async with make() as first:
        Agents(first)
        for query in "abcdef":
            await first.run("reads", query)
    async with make(warm_start_entries=4) as runtime:
        agents = Agents(runtime)
        while (await runtime.results.stats()).hot.entries < 4:  # each time a file is read
            pass
        sources = [(await runtime.run("reads", query)).source for query in "abcdef"]
        assert sources.count(Source.HOT) == 4
        assert sources.count(Source.WARM) == 2
        assert agents.runs == []
        assert all((kept.remaining_s or 0) <= 60 for kept in await runtime.results.entries())


def test_hot_results_are_renewed_before_they_expire(make: Make) -> None:
    """With early refresh, and served while it is late, a result that is asked for all the time is
    never waited for again: it is computed anew at low priority, once each time. (S1-52, S0-41)"""

    async def main() -> None:
        async with make(
            persist=False, clock=VirtualClock(), early_refresh=3, stale_s=30
        ) as runtime:
            priorities: list[Priority] = []
            at_once = most = 0

            @runtime.agent(effect="read", cache_ttl=60)
            async def slow(query: str, call: Call) -> str:
                nonlocal at_once, most
                priorities.append(call.priority)
                at_once += 1
                most = max(most, at_once)
                await asyncio.sleep(5)
                at_once -= 1
                return query

            seen: list[Outcome] = [await runtime.run("slow", "x")]
            for _ in range(3_000):
                seen += await asyncio.gather(*(runtime.run("slow", "x") for _ in range(2)))
                await asyncio.sleep(0.1)
            assert {outcome.source for outcome in seen[1:]} <= {Source.HOT, Source.STALE}
            assert {outcome.total_ns for outcome in seen[1:]} == {0}
            assert len(priorities) >= 5
            assert priorities[0] is Priority.NORMAL
            assert set(priorities[1:]) == {Priority.LOW}
            assert most == 1

    run_virtual(main())


def test_who_joins_what_is_ahead_does_not_wait_like_it() -> None:
    """A call that joins what waits for capacity at the lowest priority waits no longer than if it
    had come alone. (S1-52)"""

    async def main() -> None:
        runtime = Runtime(
            load(
                overrides={
                    "agents": {"watch": False},
                    "hostexec": {"mode": "off"},
                    "run": {"max_concurrency": 1},
                }
            ),
            agents=[],
            persist=False,
            environ={},
            clock=VirtualClock(),
        )
        async with runtime:

            @runtime.agent(effect="read", cache_ttl=60, scope="global")
            async def slow(query: str) -> str:
                await asyncio.sleep(1)
                return query

            busy = asyncio.create_task(runtime.run("slow", "busy"))
            await asyncio.sleep(0)
            warming = asyncio.create_task(runtime.results.warm([("slow", "x")]))
            await asyncio.sleep(0.1)
            joined = asyncio.create_task(runtime.run("slow", "x"))
            await asyncio.sleep(0.1)
            others = [asyncio.create_task(runtime.run("slow", str(n))) for n in range(5)]
            outcome = await joined
            assert (outcome.source, outcome.total_ns) == (Source.JOINED, 1_900_000_000)
            await asyncio.gather(busy, warming, *others)

    run_virtual(main())


def test_what_is_ahead_yields_to_what_is_asked() -> None:
    """While capacity is short calls that were asked for go first. (S1-52)"""

    async def main() -> None:
        runtime = Runtime(
            load(
                overrides={
                    "agents": {"watch": False},
                    "hostexec": {"mode": "off"},
                    "run": {"max_concurrency": 1},
                }
            ),
            agents=[],
            persist=False,
            environ={},
            clock=VirtualClock(),
        )
        async with runtime:
            order: list[str] = []

            @runtime.agent(effect="read", cache_ttl=60)
            async def slow(query: str) -> str:
                await asyncio.sleep(1)
                order.append(query)
                return query

            warming = asyncio.create_task(
                runtime.results.warm([("slow", f"ahead {n}") for n in range(3)], concurrency=3)
            )
            await asyncio.sleep(0.5)
            await asyncio.gather(*(runtime.run("slow", f"asked {n}") for n in range(2)))
            await warming
            assert order == ["ahead 0", "asked 0", "asked 1", "ahead 1", "ahead 2"]

    run_virtual(main())
