"""`AgentCache`: who finds which result, for how long, and what the figures say."""

import asyncio
import inspect
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis.strategies import dictionaries, sampled_from, text, tuples

from paceline import LRUCache, TieredCache, cached
from paceline.agents import result_cache
from paceline.agents.context import NO_ARGUMENTS
from paceline.agents.result_cache import AgentCache
from paceline.cache.entry import PLAIN, About
from paceline.cache.function.decorator import Options
from paceline.cache.keys import digest
from paceline.cache.stack.cache import Places
from paceline.call import Scope, ScopeLevel, Source
from paceline.errors import Category, CodecError, InvalidInputError, UnkeyableError
from paceline.metrics.report import report
from paceline.runtime import AgentOptions, CallOptions
from paceline.testing.virtual_time import VirtualClock, run


class _Clock:
    """A clock that only the test moves, though a loop runs."""

    def __init__(self) -> None:
        self.now_ns = 0

    def monotonic_ns(self) -> int:
        return self.now_ns

    def wall_ns(self) -> int:
        return VirtualClock.EPOCH_NS + self.now_ns

    def advance(self, seconds: float) -> None:
        self.now_ns += round(seconds * 1e9)


@pytest.fixture
def clock() -> _Clock:
    return _Clock()


@pytest.fixture
def cache(clock: _Clock) -> AgentCache:
    return AgentCache(clock=clock)


async def test_the_surface_is_that_of_old(clock: _Clock) -> None:
    """The names, their order and defaults are those that bots were written against: 500 results
    for 300 seconds. (S1-02, E-04, X-12)"""
    surface: dict[Callable[..., Any], list[str]] = {
        AgentCache: ["max_entries", "default_ttl", "enable_metrics"],
        AgentCache.get: ["self", "agent_name", "input_data", "ttl_seconds"],
        AgentCache.put: ["self", "agent_name", "input_data", "result", "ttl_seconds"],
        AgentCache.log_execution: [
            "self", "agent_name", "input_data", "execution_time_ms", "success", "error", "cached",
        ],
        AgentCache.get_agent_stats: ["self", "agent_name"],
        AgentCache.clear_agent: ["self", "agent_name"],
    }  # fmt: skip
    for function, names in surface.items():
        found = [
            name
            for name, parameter in inspect.signature(function).parameters.items()
            if parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        ]
        assert found == names
    cache = AgentCache(clock=clock)
    assert (cache.max_entries, cache.default_ttl, cache.enable_metrics) == (500, 300, True)
    await cache.put("fastfetch", "", "Debian")
    clock.advance(299.999)
    assert await cache.get("fastfetch", "") == "Debian"
    clock.advance(0.001)
    assert await cache.get("fastfetch", "") is None


async def test_none_is_a_result(cache: AgentCache) -> None:
    """`lookup` tells a result of None, 0, "" or [] from none; `get` has them too. (S0-34, T1)"""
    results: list[Any] = [None, 0, "", [], False]
    for result in results:
        await cache.put("a", "x", result)
        hit = await cache.lookup("a", "x")
        assert hit is not None
        assert hit.value == result
        assert type(hit.value) is type(result)
    assert await cache.lookup("a", "y") is None


_Names = text("ab:{}0", max_size=3)


@given(
    tuples(_Names, _Names, dictionaries(sampled_from("uv"), _Names)),
    tuples(_Names, _Names, dictionaries(sampled_from("uv"), _Names)),
)
def test_only_the_same_request_has_the_same_result(
    one: tuple[str, str, dict[str, Any]], other: tuple[str, str, dict[str, Any]]
) -> None:
    """Agent, input and all further arguments are the key, and none runs into the next.
    (S1-06, E-05, T16)"""

    async def check() -> None:
        cache = AgentCache()
        agent, query, context = one
        await cache.put(agent, query, "mine", **context)
        agent, query, context = other
        found = await cache.lookup(agent, query, **context)
        assert (found is not None) == (one == other)

    asyncio.run(check())


async def test_inputs_are_told_apart_by_type(cache: AgentCache) -> None:
    """Inputs that are no text are keyed by what they are; what has no key is refused. (S1-06, T4)"""
    inputs: list[Any] = [1, True, "1", (1,), [1], {"a": 1}, None]
    for number, value in enumerate(inputs):
        await cache.put("a", value, number)
    assert [await cache.get("a", value) for value in inputs] == list(range(len(inputs)))
    with pytest.raises(UnkeyableError):
        await cache.get("a", object())


async def test_nobody_is_given_the_result_of_another(cache: AgentCache) -> None:
    """A result of a user is found by that user alone; one of nobody's by nobody who has a name;
    one is for all only if both sides say so. (S1-10, S1-54, X-04, T16)"""
    await cache.put("weather", "today", "ada's", user="ada")
    assert await cache.get("weather", "today", user="ada") == "ada's"
    assert await cache.get("weather", "today", user="bob") is None
    assert await cache.get("weather", "today") is None
    assert await cache.get("weather", "today", scope="global") is None
    await cache.put("weather", "today", "nobody's")
    assert await cache.get("weather", "today", user="bob") is None
    await cache.put("weather", "today", "all's", scope=ScopeLevel.GLOBAL, user="ada")
    assert await cache.get("weather", "today", scope="global", user="bob") == "all's"
    assert await cache.get("weather", "today", user="bob") is None


async def test_a_whole_scope_can_be_given(cache: AgentCache) -> None:
    """A tenant or a session is a circle like any other; contradictions are refused. (S1-10, X-04)"""
    acme = Scope(ScopeLevel.TENANT, tenant="acme")
    await cache.put("a", "x", 1, scope=acme)
    assert await cache.get("a", "x", scope=acme) == 1
    assert await cache.get("a", "x", scope=Scope(ScopeLevel.TENANT, tenant="other")) is None
    with pytest.raises(InvalidInputError):
        await cache.get("a", "x", scope=acme, user="ada")
    assert await cache.get("a", "x", scope="user", user="ada") is None
    for unclear in ("Global", "user", "session", ScopeLevel.TENANT):
        with pytest.raises(InvalidInputError, match="with whom to share"):
            await cache.get("a", "x", scope=unclear)


async def test_further_arguments_are_part_of_the_key(cache: AgentCache) -> None:
    """Two channels, settings or user ids, given by name, never share. (E-05, T16)"""
    await cache.put("system", "ls", "alice's files", user_id=1, channel_id=7)
    assert await cache.get("system", "ls", user_id=2, channel_id=7) is None
    assert await cache.get("system", "ls", user_id=1) is None
    assert await cache.get("system", "ls", channel_id=7, user_id=1) == "alice's files"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("ttl", "ttl_seconds"),
        ("cache_ttl", "ttl_seconds"),
        ("ttl_second", "ttl_seconds"),
        ("agent", "agent_name"),
        ("agentname", "agent_name"),
        ("caller", "user="),
        ("usr", "user"),
        ("scop", "scope"),
        ("default_ttl", "AgentCache(default_ttl=...)"),
        ("max_size", "AgentCache(max_entries=...)"),
        ("fn", "another name"),
        ("tags", "another name"),
    ],
)
async def test_a_misspelt_option_is_no_further_argument(
    cache: AgentCache, name: str, meant: str
) -> None:
    """A keyword that is an option elsewhere, or nearly one here, is refused and says what to
    write: it would silently be part of the key and do nothing else. (S1-02, E-05)"""

    async def fail() -> None:
        raise AssertionError("nothing is to run")

    given: Any = {name: "x"}
    calls: list[Callable[[], Any]] = [
        lambda: cache.get("a", "x", **given),
        lambda: cache.lookup("a", "x", **given),
        lambda: cache.put("a", "x", 1, **given),
        lambda: cache.delete("a", "x", **given),
    ]
    if name != "fn":
        calls.append(lambda: cache.get_or_run("a", "x", fail, **given))
    for call in calls:
        with pytest.raises(InvalidInputError) as caught:
            await call()
        assert repr(name) in str(caught.value)
        assert meant in caught.value.next_step
    assert len(cache) == 0


OPTIONS = {
    name
    for made in (
        LRUCache, LRUCache.put, TieredCache, TieredCache.put, cached,
        AgentCache, AgentCache.put, AgentCache.get_or_run,
    )
    for name, parameter in inspect.signature(made).parameters.items()
    if parameter.kind is not parameter.VAR_KEYWORD
}.union(*(more.__annotations__ for more in (Options, Places, CallOptions, AgentOptions)))  # fmt: skip
OWN = {"agent_name", "context", "input_data", "scope", "self", "user"}
"""Taken by every method of AgentCache, as what they are."""
ARGUMENTS = {
    "cache", "capabilities", "description", "directory", "examples", "name", "result", "value",
    "version",
}  # fmt: skip
"""Options elsewhere that promise nothing about how a result is kept, or are given by place."""


def test_every_option_there_is_can_be_told_from_an_argument() -> None:
    """Each option of a cache, a call or an agent that promises something about a result is known
    to AgentCache. (S1-02)"""
    unknown = sorted(OPTIONS - OWN - ARGUMENTS - NO_ARGUMENTS.keys())
    assert [name for name in unknown if "ttl" not in name.split("_")] == []


@pytest.mark.parametrize(
    "name", ["user_id", "channel_id", "guild", "lang", "model", "session", "username", "score", "x"]
)
async def test_other_names_are_arguments(cache: AgentCache, name: str) -> None:
    """What resembles no option is a further argument, as bots have them. (S1-02, E-05)"""
    given: Any = {name: 1}
    await cache.put("a", "x", 1, **given)
    assert await cache.get("a", "x", **given) == 1
    assert await cache.get("a", "x") is None


async def test_lifetimes(cache: AgentCache, clock: _Clock) -> None:
    """0 stores nothing and removes what was there; a reader may ask for a younger result than
    there is, and never gets an older one than its lifetime. (S0-37, S1-08, T2)"""
    await cache.put("a", "x", 1, 10)
    clock.advance(5)
    assert await cache.get("a", "x", 5) is None
    assert await cache.get("a", "x", 5.1) == 1
    assert await cache.get("a", "x", 0) is None
    hit = await cache.lookup("a", "x")
    assert hit is not None
    assert (hit.age_s, hit.source) == (5.0, Source.HOT)
    clock.advance(5)
    assert await cache.get("a", "x", 1000) is None
    await cache.put("a", "x", 1)
    await cache.put("a", "x", 2, 0)
    assert await cache.get("a", "x") is None
    with pytest.raises(InvalidInputError):
        await cache.put("a", "x", 1, -1)


async def test_the_least_recently_used_goes(clock: _Clock) -> None:
    """What was just used stays when room is needed; an update evicts nobody; the dead go first.
    (S1-07, S1-08, X-10)"""
    cache = AgentCache(max_entries=3, clock=clock)
    for query in "abc":
        await cache.put("x", query, query)
    await cache.get("x", "a")
    await cache.put("x", "c", "again")
    await cache.put("x", "d", "d")
    assert [q for q in "abcd" if await cache.get("x", q) is not None] == ["a", "c", "d"]
    await cache.put("x", "d", "short", 1)
    clock.advance(2)
    await cache.put("x", "e", "e")
    assert [q for q in "acde" if await cache.get("x", q) is not None] == ["a", "c", "e"]
    assert len(cache) == 3
    assert cache.stats().removed["expired"] == 1


async def test_clear_agent_removes_exactly_that_agents_results(cache: AgentCache) -> None:
    """However names begin or end, only the results of the very agent go. (E-08, T17)"""
    for agent in ("host", "host_exec", "hos", ""):
        for query in ("a", "b", "c"):
            await cache.put(agent, query, agent, user="ada")
    assert await cache.clear_agent("host") == 3
    assert await cache.clear_agent("host") == 0
    assert await cache.get("host", "a", user="ada") is None
    assert len(cache) == 9
    assert await cache.delete("hos", "a", user="ada")
    assert not await cache.delete("hos", "a", user="ada")
    assert await cache.clear() == 8


async def test_a_result_is_the_callers_own(cache: AgentCache) -> None:
    """What a caller does to a result no other caller sees. (S0-42, T6)"""
    result = {"lines": ["a"]}
    await cache.put("a", "x", result)
    result["lines"].append("b")
    (await cache.get("a", "x"))["lines"].append("c")
    assert await cache.get("a", "x") == {"lines": ["a"]}
    with pytest.raises(CodecError):
        await cache.put("a", "x", (n for n in "ab"))


async def test_figures(cache: AgentCache, clock: _Clock) -> None:
    """The figures of old, with cached, executed and failed calls told apart. (S1-15, X-07)"""
    await cache.log_execution("a", "x", 200.0, success=True)
    await cache.log_execution("a", "x", 0.0, True, None, True)
    await cache.log_execution("a", "x", 1.0, success=True, cached=True)
    await cache.log_execution("a", "x", 99.0, success=False, error="boom")
    stats = cache.get_agent_stats("a")
    times = {name: stats.pop(name) for name in ("cached_ms", "executed_ms", "failed_ms")}
    assert stats == {
        "agent": "a", "total_calls": 4, "cached_calls": 2, "cache_hit_rate": 0.5,
        "errors": 1, "error_rate": 0.25, "avg_execution_time_ms": 75.0,
    }  # fmt: skip
    assert times["cached_ms"]["avg"] == 0.5
    assert times["executed_ms"]["p50"] == pytest.approx(200, rel=0.01)
    assert times["failed_ms"]["p99"] == pytest.approx(99, rel=0.01)
    assert cache.get_agent_stats("never seen") == {}
    assert list(cache.get_all_stats()) == ["a"]
    await cache.log_execution("b", "x", 1.0, success=True)
    assert cache.get_all_stats()["b"]["failed_ms"] is None
    for bad in (-1.0, float("nan"), float("inf")):
        with pytest.raises(InvalidInputError):
            await cache.log_execution("a", "x", bad, success=True)


async def test_the_text_of_old_comes_out(cache: AgentCache) -> None:
    """The figures render as the statistics that chat users know. (S1-17)"""
    for number in range(127):
        await cache.log_execution("host_exec", "df", 12.3, number >= 2, cached=number >= 38)
    assert report(cache.metrics.snapshot()) == (
        "**Agent Performance Statistics**\n\n**host_exec**\n  Calls: 127 (cached: 89)\n"
        "  Cache hit rate: 70.1%\n  Avg time: 12.3ms\n  Errors: 2 (1.6%)"
    )


async def test_records_are_bounded_and_hold_no_secrets(clock: _Clock) -> None:
    """The last 1,000 calls are kept, without credentials; none with metrics off. (S1-15, E-04)"""
    cache = AgentCache(clock=clock)
    for number in range(1_100):
        await cache.log_execution("a", f"n{number}", 1.0, success=True)
    assert len(cache.recent()) == 1_000
    assert cache.recent()[0].input == "n100"
    await cache.log_execution("b", "login password=hunter22", 1.0, False, "token: abcdef123456")
    (record,) = cache.recent("b")
    assert "hunter22" not in record.input
    assert "abcdef123456" not in (record.error or "")
    assert (record.success, record.cached, record.at_ns) == (False, False, clock.wall_ns())
    off = AgentCache(enable_metrics=False)
    await off.log_execution("a", "x", 1.0, success=True)
    assert (off.recent(), off.get_all_stats()) == ([], {})


class _Agent:
    """An agent that takes a second, and counts."""

    def __init__(self, result: object = "done") -> None:
        self.runs = 0
        self.result = result

    async def __call__(self) -> Any:
        self.runs += 1
        await asyncio.sleep(1)
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


def test_many_who_ask_at_once_run_it_once() -> None:
    """Of 50 calls at a time one runs; each gets a result of its own. (S1-09, S0-41, T5)"""

    async def check() -> None:
        cache, agent = AgentCache(clock=VirtualClock()), _Agent(["r"])
        results = await asyncio.gather(*[cache.get_or_run("a", "x", agent) for _ in range(50)])
        assert agent.runs == 1
        assert len({id(result) for result in results}) == 50
        assert await cache.get_or_run("a", "x", agent) == ["r"]
        assert await cache.get_or_run("a", "x", agent, user="ada") == ["r"]
        assert agent.runs == 2
        stats = cache.get_agent_stats("a")
        assert (stats["total_calls"], stats["cached_calls"], stats["errors"]) == (52, 50, 0)
        assert stats["executed_ms"]["avg"] == 1000.0

    run(check())


def test_failures_are_not_kept() -> None:
    """What raises, and what its caller says is no success, is counted as an error and runs again;
    ttl 0 always runs. (E-07, T15)"""

    async def check() -> None:
        cache = AgentCache(clock=VirtualClock())
        broken = _Agent(TimeoutError("slow"))
        for _ in range(2):
            with pytest.raises(TimeoutError):
                await cache.get_or_run("a", "x", broken)
        said = _Agent("Error: no such city")
        for _ in range(2):
            found = await cache.get_or_run(
                "b", "x", said, is_success=lambda result: not result.startswith("Error")
            )
            assert found == "Error: no such city"
        fresh = _Agent("time")
        for _ in range(2):
            await cache.get_or_run("c", "x", fresh, 0)
        assert (broken.runs, said.runs, fresh.runs) == (2, 2, 2)
        assert cache.get_agent_stats("a")["errors"] == 2
        assert cache.get_agent_stats("b")["error_rate"] == 1.0
        assert cache.get_agent_stats("c")["errors"] == 0
        by_category = cache.metrics.snapshot().agents["a"].ever.by_category
        assert by_category == {Category.TIMEOUT: 2}

    run(check())


def test_a_cancelled_call_is_no_error_and_hurts_nobody() -> None:
    """Who came first may leave: the others get the result, and no error is counted. (T5, T10)"""

    async def check() -> None:
        cache, agent = AgentCache(clock=VirtualClock()), _Agent()
        first = asyncio.create_task(cache.get_or_run("a", "x", agent))
        await asyncio.sleep(0.1)
        second = asyncio.create_task(cache.get_or_run("a", "x", agent))
        await asyncio.sleep(0.1)
        first.cancel()
        assert await second == "done"
        with pytest.raises(asyncio.CancelledError):
            await first
        assert agent.runs == 1
        assert cache.get_agent_stats("a")["errors"] == 0

    run(check())


def test_a_result_from_before_a_removal_is_not_kept() -> None:
    """A run that began before `clear_agent` is handed out, not stored, and not joined. (S0-78)"""

    async def check() -> None:
        cache, agent = AgentCache(clock=VirtualClock()), _Agent()
        early = asyncio.create_task(cache.get_or_run("a", "x", agent))
        await asyncio.sleep(0.5)
        await cache.clear_agent("a")
        late = asyncio.create_task(cache.get_or_run("a", "x", agent))
        assert await early == "done"
        assert len(cache) == 0
        assert await late == "done"
        assert (agent.runs, len(cache)) == (2, 1)

    run(check())


def test_threads_and_loops_share_it() -> None:
    """Eight threads, each with a loop of its own, use one cache: no exception, no lost count,
    bounds kept. (S1-09, T9)"""
    cache = AgentCache(max_entries=20)
    errors: list[Exception] = []

    async def work(seed: int) -> None:
        for turn in range(300):
            query = str((turn * seed) % 40)
            await cache.put("a", query, query)
            assert await cache.get("a", query) in (query, None)
            await cache.log_execution("a", query, 1.0, success=True)
            if turn % 50 == 0:
                await cache.clear_agent("a")
                cache.get_all_stats()

    def start(seed: int) -> None:
        try:
            asyncio.run(work(seed))
        except Exception as exc:  # noqa: BLE001 (shown below)
            errors.append(exc)

    threads = [threading.Thread(target=start, args=(seed,)) for seed in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(cache) <= 20
    assert cache.get_agent_stats("a")["total_calls"] == 2_400


class _Found:
    def __init__(self, value: bytes, remaining_ns: int) -> None:
        self.value = value
        self.remaining_ns = remaining_ns


class _Listed:
    def __init__(self, key: bytes, about: About) -> None:
        self.key = key
        self.about = about


class _Shared:
    """A tier that other processes see, too."""

    def __init__(self, clock: _Clock) -> None:
        self.clock = clock
        self.away = False
        self.held: dict[bytes, tuple[bytes, int, About]] = {}

    async def get(self, key: bytes) -> _Found | None:
        await asyncio.sleep(0)
        value, end_ns, _ = self.held.get(key, (b"", 0, PLAIN))
        left_ns = end_ns - self.clock.monotonic_ns()
        return None if self.away or left_ns <= 0 else _Found(value, left_ns)

    async def put(self, key: bytes, payload: bytes, ttl_ns: int, about: About) -> None:
        await asyncio.sleep(0)
        if not self.away:
            self.held[key] = (payload, self.clock.monotonic_ns() + ttl_ns, about)

    async def delete(self, key: bytes) -> None:
        self.held.pop(key, None)

    async def clear(self) -> None:
        self.held.clear()

    async def entries(self) -> list[_Listed]:
        return [_Listed(key, about) for key, (_, _, about) in self.held.items()]


@pytest.fixture
def shared(clock: _Clock) -> _Shared:
    return _Shared(clock)


async def test_processes_share_results(clock: _Clock, shared: _Shared) -> None:
    """What one puts another finds, as old as it is and until the same end; then it has it too.
    (S1-51)"""
    one, other = AgentCache(clock=clock, shared=shared), AgentCache(clock=clock, shared=shared)
    await one.put("a", "x", {"n": [1]}, 10, user="ada")
    clock.advance(4)
    assert await other.get("a", "x", 4, user="ada") is None
    hit = await other.lookup("a", "x", user="ada")
    assert hit is not None
    assert (hit.value, hit.age_s) == ({"n": [1]}, 4.0)
    shared.away = True
    again = await other.lookup("a", "x", user="ada")
    assert again is not None
    assert (again.age_s, again.source) == (4.0, Source.HOT)
    assert await other.get("a", "x", user="bob") is None
    clock.advance(6)
    assert await other.get("a", "x", user="ada") is None


async def test_removals_reach_the_shared_tier(clock: _Clock, shared: _Shared) -> None:
    """Removing one, an agent's or all results removes them there; `forget` removes what another
    process changed. (S1-51, T17)"""
    one, other = AgentCache(clock=clock, shared=shared), AgentCache(clock=clock, shared=shared)
    for agent in ("a", "b"):
        for query in ("x", "y"):
            await one.put(agent, query, query)
    assert await other.clear_agent("a") == 2
    assert await other.get("b", "x") == "x"
    assert await one.get("a", "x") == "x"
    one.forget(next(iter(shared.held)))
    one.forget(None)
    assert await one.get("a", "x") is None
    assert await one.get("b", "y") == "y"
    await one.delete("b", "y")
    await one.put("b", "x", "gone", 0)
    assert shared.held == {}
    await one.put("b", "x", 1)
    await one.clear()
    assert shared.held == {}


async def test_an_outage_is_a_local_cache(clock: _Clock, shared: _Shared) -> None:
    """While the shared tier is away, or holds nonsense, this process goes on alone. (S1-51)"""
    cache = AgentCache(clock=clock, shared=shared)
    shared.away = True
    await cache.put("a", "x", 1)
    assert await cache.get("a", "x") == 1
    assert await cache.get("a", "y") is None
    shared.away = False
    await cache.put("a", "z", 1)
    for key, (_, end_ns, about) in shared.held.items():
        shared.held[key] = (b"\xffnonsense", end_ns, about)
    cache.forget(None)
    assert await cache.get("a", "z") is None
    await cache.put("a", "local", {"f": b""}, 5)
    assert await cache.get("a", "local") == {"f": b""}


async def test_an_older_shared_result_does_not_replace_a_newer(
    clock: _Clock, shared: _Shared
) -> None:
    """What was put while the shared tier was asked stays; an older one of it does not come back.
    (S1-51)"""
    one, other = AgentCache(clock=clock, shared=shared), AgentCache(clock=clock, shared=shared)
    await one.put("a", "x", "old")
    clock.advance(1)
    asking = asyncio.create_task(other.get("a", "x"))
    await asyncio.sleep(0)
    await other.put("a", "x", "new")
    assert await asking in ("old", "new")
    assert await other.get("a", "x") == "new"


async def test_a_result_removed_while_it_is_shared_is_removed_there(
    clock: _Clock, shared: _Shared
) -> None:
    """`clear_agent` during a put leaves nothing behind in the shared tier. (S1-51, S0-78)"""
    cache = AgentCache(clock=clock, shared=shared)
    putting = asyncio.create_task(cache.put("a", "x", 1))
    await asyncio.sleep(0)
    await cache.clear_agent("a")
    await putting
    assert shared.held == {}
    assert await cache.get("a", "x") is None


def _key_without_context(agent: str, query: object, circle: Scope, context: Any) -> bytes:
    return digest((agent, query, circle))


def _key_without_scope(agent: str, query: object, circle: Scope, context: Any) -> bytes:
    return digest((agent, query, context))


def _key_by_colons(agent: str, query: object, circle: Scope, context: Any) -> bytes:
    return f"{agent}:{query}:{circle}:{sorted(context.items())}".encode()


@pytest.mark.parametrize("bug", [_key_without_context, _key_without_scope, _key_by_colons])
async def test_the_checks_catch_seeded_keys(
    bug: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys that forget the arguments or the circle, or run together, fail. (E-05, S1-06, T16)"""
    monkeypatch.setattr(result_cache, "_key", bug)
    with pytest.raises(AssertionError):
        await _check_keys()


async def _check_keys() -> None:
    await test_further_arguments_are_part_of_the_key(AgentCache())
    await test_nobody_is_given_the_result_of_another(AgentCache())
    cache = AgentCache()
    await cache.put("a:b", "c", 1)
    assert await cache.get("a", "b:c") is None


async def test_repr_tells_how_full_it_is_and_no_value() -> None:
    """`repr` says how many results there are and may be, and shows none of them."""
    cache = AgentCache(max_entries=2)
    await cache.put("agent", "secret input", "secret value")

    assert repr(cache) == "AgentCache(1/2 results)"
