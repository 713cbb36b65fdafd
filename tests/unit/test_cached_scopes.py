"""`cached` with a scope: whose results are whose, and what a scope leaves behind."""

import asyncio
import enum
import gc
import random
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.cache.entry import Table
from paceline.cache.function import wrappers
from paceline.cache.function.decorator import cached
from paceline.cache.function.tables import Scopes
from paceline.cache.lru import LRUCache
from paceline.cache.stack.cache import TieredCache
from paceline.testing.virtual_time import VirtualClock, run


class _Role(enum.StrEnum):
    ADA = "ada"


def _scopes(function: Any) -> Scopes:
    """What has the tables of a cached function's scopes."""
    scopes: Scopes = function.cache_info.__self__.scopes
    return scopes


# --- whose results are whose

_WHO = st.sampled_from([1, True, 1.0, "1", 0, False, -1, "", None, "ada", _Role.ADA, b"ada", (1,)])
_X = st.sampled_from([1, True, "1", "ada", None, ("ada", 1), 2.0])
_DEEDS = st.sampled_from(["call", "call", "call", "name", "invalidate", "clear", "tag"])


class _Model:
    """What a function with a scope is to do: one that is kept by scope, arguments and types."""

    def __init__(self, cache: LRUCache | TieredCache, *, is_async: bool, pair: bool) -> None:
        self.who: Any = None
        self.ran: list[str] = []
        self.kept: set[str] = set()
        self._cache = cache
        self._is_async = is_async

        def note(*args: Any) -> str:
            self.ran.append(repr((self.who, *args)))
            return self.ran[-1]

        async def one_async(x: Any) -> str:
            return note(x)

        async def two_async(x: Any, y: Any = 7) -> str:
            return note(x)

        def one(x: Any) -> str:
            return note(x)

        def two(x: Any, y: Any = 7) -> str:
            return note(x)

        function: Any = (one, two, one_async, two_async)[2 * is_async + pair]
        self.function: Any = cached(cache, scope=lambda: self.who, tags=("all",))(function)

    def do(self, who: Any, x: Any, deed: str) -> None:
        """Does it, and checks that it is what the model says."""
        self.who = who
        name = repr((who, x))
        if deed == "invalidate":
            assert self.function.invalidate(x) == (name in self.kept)
            self.kept.discard(name)
        elif deed in ("clear", "tag"):
            gone = (
                self.function.cache_clear()
                if deed == "clear"
                else self._cache.invalidate(tag="all")
            )
            assert gone == len(self.kept)
            self.kept.clear()
        else:
            before = len(self.ran)
            result = self.function(x=x) if deed == "name" else self.function(x)
            assert (run(result) if self._is_async else result) == name
            assert len(self.ran) - before == (name not in self.kept)
            self.kept.add(name)
        assert self.function.cache_info().entries == len(self.kept)


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.tuples(_WHO, _X, _DEEDS), max_size=40),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_a_scope_is_as_an_argument(
    deeds: list[tuple[Any, Any, str]], is_async: bool, pair: bool, tiered: bool
) -> None:
    """A function with a scope runs once for each scope and argument that differ in value or type,
    and what is removed is what that scope, or what all of them, had. (S0-31, S0-38, T16)"""
    clock = VirtualClock()
    cache = TieredCache(clock=clock) if tiered else LRUCache(clock=clock)
    model = _Model(cache, is_async=is_async, pair=pair)
    for who, x, deed in deeds:
        model.do(who, x, deed)


def _check_lookalikes() -> None:
    for is_async in (False, True):
        model = _Model(LRUCache(clock=VirtualClock()), is_async=is_async, pair=False)
        for who in (1, True, 1.0, "1", None, "ada", _Role.ADA) * 2:
            model.do(who, 1, "call")


def test_lookalike_scopes_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scopes that are equal and of different types share nothing; the check fails if a wrapper,
    or what stands behind it, takes any scope for a plain one. (S0-31, T16)"""
    _check_lookalikes()
    with monkeypatch.context() as patch:
        patch.setattr("paceline.cache.function.memo.type", lambda _: str, raising=False)
        with pytest.raises(AssertionError):
            _check_lookalikes()

    def careless(way: Any) -> Any:
        def call(x: Any) -> Any:
            entry = way.kept.get(way.scope(), {}).get(x)
            return way.answer(x) if entry is None else entry.value

        return call

    monkeypatch.setitem(wrappers._TEMPLATES, (False, True, 1), (careless, careless))
    with pytest.raises(AssertionError):
        _check_lookalikes()


# --- how long the table of a scope lives


def _check_room(kept: int, *, ttl: float | None = 300) -> None:
    """That of 5,000 scopes no more than a few times what is kept is remembered."""
    who = 0
    cache = LRUCache(kept, ttl, clock=VirtualClock())

    @cached(cache, scope=lambda: who, tags=("all",))
    def read(x: int) -> int:
        return x

    scopes = _scopes(read)
    for who in range(5_000):  # noqa: B007 (the scope asks for it)
        assert [read(1), read(1)] == [1, 1]
        assert len(scopes) == len(scopes.kept) <= 4 * kept + 250
    assert len(scopes.tables()) <= 3 * kept + 100
    cache.clear()
    cache.put("other", 1)  # with which hits of what is gone are forgotten
    tables = [thing for thing in gc.get_objects() if type(thing) is Table]
    assert sum(table.name.endswith("_check_room.<locals>.read") for table in tables) <= 10


@pytest.mark.parametrize("kept", [0, 1, 50])
@pytest.mark.parametrize("ttl", [None, 300])
def test_scopes_without_results_are_forgotten(kept: int, ttl: float | None) -> None:
    """However many scopes there were, what is remembered of them is bounded by how many have
    something kept. (S0-31)"""
    _check_room(kept, ttl=ttl)


def test_a_table_of_a_scope_lives_as_long_as_anybody_refers_to_it() -> None:
    """A scope has one table while anybody has it, a new one afterwards, and no other scope's."""
    scopes = Scopes(Table)
    one = scopes.table("ada")
    assert scopes.table("ada") is one is not scopes.table("bob")
    assert scopes.kept["ada"] is one.entries
    assert scopes.tables() == [one]
    for number in range(1_000):
        scopes.table(number)
    assert scopes.table("ada") is one
    assert len(scopes) == len(scopes.kept) < 100
    kept = scopes.kept["ada"]
    del one
    assert scopes.tables() == []
    assert scopes.table("ada").entries is not kept


def test_who_comes_in_the_middle_gets_the_same_table() -> None:
    """If another asks for a scope while its table is made, both get one and the same. (S0-44)"""
    first: list[Table] = []

    def make() -> Table:
        if not first:
            first.append(Table())
            first[0] = scopes.table("ada")
        return Table()

    scopes = Scopes(make)
    assert scopes.table("ada") is first[0]
    assert scopes.kept["ada"] is first[0].entries
    assert len(scopes) == 1


_REMOVALS: dict[str, Callable[[Any, LRUCache], object]] = {
    "key": lambda read, _: read.invalidate(1),
    "function": lambda read, _: read.cache_clear(),
    "cache": lambda _, cache: cache.clear(),
    "tag": lambda _, cache: cache.invalidate(tag="world"),
    "prefix": lambda _, cache: cache.invalidate(prefix="tests."),
}


def _check_removal(remove: Callable[[Any, LRUCache], object]) -> None:
    """That a removal while a scope's only result is computed is noticed, after many others."""
    who: Any = "ada"
    state = asked = 0
    cache = LRUCache(10, clock=VirtualClock())

    def choose(scope: Any) -> None:
        nonlocal who
        who = scope

    @cached(cache, scope=lambda: who, tags=("world",))
    async def read(x: int) -> int:
        nonlocal asked
        asked += who == "ada"
        seen = state
        if who == "ada":
            await asyncio.sleep(1)
        return seen

    async def main() -> None:
        nonlocal state
        early = asyncio.create_task(read(1))
        await asyncio.sleep(0.25)
        for number in range(200):
            choose(number)
            await read(1)
        choose("ada")
        joining = asyncio.create_task(read(1))
        await asyncio.sleep(0.25)
        assert asked == 1
        state = 1
        remove(read, cache)
        late = asyncio.create_task(read(1))
        await asyncio.sleep(0.25)
        cache.clear()
        assert [await early, await joining, await late] == [0, 0, 1]
        assert len(cache) == 0
        assert (await read(1), await read(1), asked) == (1, 1, 3)

    run(main())


@pytest.mark.parametrize("remove", _REMOVALS)
def test_a_removal_while_a_scopes_only_result_is_computed(remove: str) -> None:
    """A scope with nothing kept is remembered while something is computed for it: who comes next
    joins, and what was removed meanwhile, however it was, is not brought back. (S0-41, S0-78)"""
    _check_removal(_REMOVALS[remove])


@pytest.mark.parametrize("removed", [False, True])
def test_a_thread_at_work_is_joined_in_its_scope(removed: bool) -> None:
    """A thread that computes for a scope is joined by those of the same scope, and by no others;
    after a removal it is not, and what it computes is not kept. (S0-41, S0-44, S0-78)"""
    local = threading.local()
    at_work, go = threading.Event(), threading.Event()
    ran: list[str | int] = []
    cache = LRUCache(10, clock=VirtualClock())

    @cached(cache, scope=lambda: local.who)
    def read(x: int) -> int:
        ran.append(local.who)
        count = ran.count("ada")
        if local.who == "ada":
            at_work.set()
            assert go.wait(30)
        return count

    got: list[int] = []

    def ask() -> None:
        local.who = "ada"
        got.append(read(1))

    leader, other = threading.Thread(target=ask), threading.Thread(target=ask)
    leader.start()
    assert at_work.wait(30)
    for number in range(200):
        local.who = number
        assert read(1) == 1
    if removed:
        read.cache_clear()
    other.start()
    go.set()
    leader.join()
    other.join()
    local.who = "ada"
    assert (sorted(got), read(1)) == (([1, 2], 2) if removed else ([1, 1], 1))


def test_lost_guards_of_scopes_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks above fail if scopes are never forgotten, if those without a result are forgotten
    though one is computed, if a removal does not reach them, and if nobody finds their table."""
    with monkeypatch.context() as patch:
        patch.setattr(Scopes, "_sweep", lambda _: None)
        with pytest.raises(AssertionError):
            _check_room(1)

    def forget_empty(self: Scopes) -> None:
        for scope in [scope for scope, entries in self.kept.items() if not entries]:
            del self.kept[scope], self._tables[scope]

    with monkeypatch.context() as patch:
        patch.setattr(Scopes, "_sweep", forget_empty)
        with pytest.raises(AssertionError):
            _check_removal(_REMOVALS["key"])
    with monkeypatch.context() as patch:
        patch.setattr(Scopes, "tables", lambda _: list[Table]())
        with pytest.raises(AssertionError):
            _check_removal(_REMOVALS["function"])
    with monkeypatch.context() as patch:
        patch.setattr(Scopes, "table", lambda self, _: self._make())
        with pytest.raises(AssertionError):
            _check_removal(_REMOVALS["tag"])


def test_scopes_in_many_threads() -> None:
    """Eight threads in scopes that come and go get what their scope is to get, and of what all
    ask for at once each is computed once. (S0-44, T9, T16)"""
    local = threading.local()
    small = LRUCache(20, clock=VirtualClock())
    ran: list[tuple[str, int]] = []

    @cached(small, scope=lambda: local.who, tags=("all",))
    def passing(x: int) -> str:
        return f"{local.who} {x}"

    @cached(LRUCache(clock=VirtualClock()), scope=lambda: local.who)
    def staying(x: int) -> str:
        ran.append((local.who, x))
        return f"{local.who} {x}"

    failures: list[object] = []

    def work(seed: int) -> None:
        rng = random.Random(seed)
        try:
            for step in range(1_500):
                x = rng.randrange(3)
                local.who = f"user {rng.randrange(100)}"
                assert passing(x) == f"{local.who} {x}"
                local.who = f"user {step // 10}"
                assert staying(x) == f"{local.who} {x}"
                if x == 0 and rng.random() < 0.02:
                    small.invalidate(tag="all")
        except Exception as exc:  # noqa: BLE001 (whatever it is, the test fails)
            failures.append(exc)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(ran) == len(set(ran))
    assert len(small) <= 20


def test_results_of_scopes_in_lower_tiers() -> None:
    """What had to make room in the hot tier is found again below, for its own scope, however many
    others were there in between; and all is cleared at once. (S0-28, T16)"""
    who = ""
    ran: list[tuple[str, int]] = []

    @cached(TieredCache(hot_size=1, warm_size=1_000, clock=VirtualClock()), scope=lambda: who)
    def read(x: int) -> str:
        ran.append((who, x))
        return f"{who} {x}"

    names = [f"user {number}" for number in range(200)]
    for who in names * 2:
        assert read(1) == f"{who} 1"
    assert len(ran) == 200
    assert len(_scopes(read).tables()) == 200
    read.cache_clear()
    assert read(1) == f"{who} 1"
    assert len(ran) == 201
