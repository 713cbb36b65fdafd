"""`cached`: signatures, keys, and everything that can be told about a function's results."""

import asyncio
import functools
import gc
import inspect
import weakref
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.cache.function import wrappers
from paceline.cache.function.decorator import Options, cached
from paceline.cache.lru import LRUCache
from paceline.errors import InvalidInputError, UnkeyableError
from paceline.testing.virtual_time import VirtualClock, run


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def cache(clock: VirtualClock) -> LRUCache:
    return LRUCache(1_000, 300, clock=clock)


_PARAMETERS = [
    "", "x", "x=5", "x, /", "x, y=2", "x, y=2, z=3", "x, /, y=2", "x, *, y=2", "x, *rest, **more",
    "entry, find=1", "now, touch=1", "answer",
]  # fmt: skip
_VALUES = st.sampled_from([1, 2, 5, "1", "a", True, 1.0, None, b"a", (1,), [1], 2**70])
_NAMES = st.sampled_from(["x", "y", "z", "entry", "find", "now", "touch", "answer", "other"])


def _recording(parameters: str, ran: list[str], *, is_async: bool) -> Any:
    """A function with these parameters that notes each run and returns what it got, as text."""

    def note(got: dict[str, Any]) -> str:
        ran.append(repr(got))
        return repr(got)

    kind = "async def" if is_async else "def"
    lines = f"{kind} f({parameters}):\n    'What it does.'\n    return note(locals())"
    scope: dict[str, Any] = {"note": note, "__name__": "m"}
    exec(lines, scope)  # noqa: S102 (our own text)
    return scope["f"]


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from(_PARAMETERS),
    st.lists(
        st.tuples(st.lists(_VALUES, max_size=3), st.dictionaries(_NAMES, _VALUES, max_size=2)),
        max_size=8,
    ),
    st.booleans(),
)
def test_a_cached_function_answers_as_the_function(
    parameters: str, calls: list[tuple[list[Any], dict[str, Any]]], is_async: bool
) -> None:
    """Whatever its parameters and however it is called, a cached function gives what the function
    gives, raises TypeError where it does, and runs once for each call that differs in the value
    or type of an argument. (S0-31, S0-32, S0-40, T4)"""
    ran: list[str] = []
    function = _recording(parameters, ran, is_async=is_async)
    wrapper = cached(LRUCache(clock=VirtualClock()))(function)

    def do(target: Any, args: Any, kwargs: Any) -> Any:
        try:
            result = target(*args, **kwargs)
            return run(result) if is_async else result
        except TypeError:
            return TypeError

    distinct = set()
    for args, kwargs in calls:
        before = len(ran)
        expected = do(function, args, kwargs)
        del ran[before:]
        if expected is not TypeError:
            distinct.add(expected)
        assert do(wrapper, args, kwargs) == expected
        assert len(ran) == len(distinct)


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("parameters", _PARAMETERS)
def test_a_cached_function_looks_like_the_function(
    parameters: str, is_async: bool, cache: LRUCache
) -> None:
    """Name, signature, documentation and kind of a function stay, and the function itself can be
    had. (S0-40)"""
    function = _recording(parameters, [], is_async=is_async)
    function.mark = 1
    wrapper: Any = cached(cache)(function)
    assert inspect.signature(wrapper) == inspect.signature(function)
    assert inspect.iscoroutinefunction(wrapper) == is_async
    assert (wrapper.__name__, wrapper.__doc__, wrapper.mark) == ("f", "What it does.", 1)
    assert wrapper.__wrapped__ is wrapper.bypass is function


def test_wrong_arguments_are_told_in_the_functions_name(cache: LRUCache) -> None:
    """A call with arguments that a function does not take raises Python's own TypeError."""

    @cached(cache)
    def area(width: int, height: int) -> int:
        return width * height

    with pytest.raises(TypeError, match=r"area\(\) missing 1 required positional .*'height'"):
        area(1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"area\(\) got an unexpected keyword argument 'depth'"):
        area(1, 2, depth=3)  # type: ignore[call-arg]


@pytest.mark.parametrize("is_async", [False, True])
def test_hits_of_every_shape_are_counted(is_async: bool, cache: LRUCache) -> None:
    """Hits and misses are counted for functions of any number of parameters, methods and those
    with a scope, and the seconds that hits saved are those that computing took. (S0-39)"""
    got: list[Any] = []

    def check(wrapper: Any, *args: Any) -> None:
        for _ in range(3):
            result = wrapper(*args)
            got.append(run(result) if is_async else result)
        info = wrapper.cache_info()
        assert (info.hits, info.misses, info.entries, info.computed) == (2, 1, 1, 1)
        assert wrapper.cache_clear() == 1
        info = wrapper.cache_info()
        assert (info.hits, info.entries) == (2, 0)

    for parameters in _PARAMETERS:
        function = _recording(parameters, [], is_async=is_async)
        args = [1] if parameters else []
        check(cached(cache)(function), *args)
        check(cached(cache, scope=lambda: "ada")(function), *args)
    check(cached(cache)(_recording("x, y", [], is_async=is_async)), 1, "a")

    class Thing:
        def none(self) -> int:
            return 1

        async def none_async(self) -> int:
            return 1

        def one(self, x: int) -> int:
            return x

        async def one_async(self, x: int) -> int:
            return x

    thing = Thing()
    check(cached(cache)(Thing.none_async if is_async else Thing.none), thing)
    check(cached(cache)(Thing.one_async if is_async else Thing.one), thing, 1)
    check(cached(cache)(Thing.one_async if is_async else Thing.one), thing, (1,))
    assert len(got) == 3 * (2 * len(_PARAMETERS) + 4)


def test_hits_save_what_computing_took(cache: LRUCache, clock: VirtualClock) -> None:
    """The seconds saved are the hits times the mean time of a computation. (S0-39)"""

    @cached(cache)
    def slow(seconds: int) -> int:
        clock.advance(seconds)
        return seconds

    for seconds in (1, 3, 1, 3, 3):
        slow(seconds)
    info = slow.cache_info()
    assert (info.computed_s, info.saved_s) == (4, 6)


def test_a_scope_is_part_of_the_key(cache: LRUCache) -> None:
    """What is computed in one scope is served in no other, whatever the scopes look like; with
    plain scopes and others alike. (S0-31, T16)"""
    who: Any = None
    ran: list[Any] = []

    @cached(cache, scope=lambda: who)
    def mine(x: Any) -> Any:
        ran.append((who, x))
        return len(ran)

    @cached(cache, scope=lambda: who)
    def ours(x: Any, y: Any = 0) -> Any:
        ran.append((who, x))
        return len(ran)

    scopes = ["ada", "bob", "", None, 1, "1", True, ("ada", "bob"), ("ada",), b"ada", 1.0]
    for function in (mine, ours):
        for who in scopes * 2:  # noqa: B007 (the scope asks for it)
            function("ada")
            function(x="ada")
            function(("ada", "bob"))
    assert len(ran) == 2 * 2 * len(scopes)
    mine_too = cached(cache, scope=lambda: "a")(lambda x: x)
    assert mine_too("b") == "b"
    who = object()
    with pytest.raises(UnkeyableError):
        mine(1)


def test_an_instance_takes_its_results_with_it(cache: LRUCache) -> None:
    """Results of a method keep no instance alive, are shared with no other instance, and leave
    with theirs. (S0-32)"""

    class Thing:
        def __init__(self, word: str) -> None:
            self.word = word

        @cached(cache)
        def say(self, x: int) -> str:
            return f"{self.word} {x}"

    for number in range(50):
        thing = Thing(str(number))
        assert [thing.say(1), thing.say(x=1), thing.say(2)] == [f"{number} 1"] * 2 + [f"{number} 2"]
    thing = Thing("last")
    thing.say(1)
    last = weakref.ref(thing)
    assert Thing.say.invalidate(thing, 1)
    assert not Thing.say.invalidate(thing, 3)
    assert Thing.say.cache_info().misses == 101
    del thing
    gc.collect()
    assert last() is None
    cache.put("other", 1)
    assert len(cache) == 1


def test_options_about_keys(cache: LRUCache) -> None:
    """A key of one's own, ignored parameters and versions do what they say. (S0-31, S0-40)"""
    ran: list[Any] = []

    @cached(cache, key=lambda text, **_: text.lower())
    def folded(text: str, *, loud: bool = False) -> str:
        ran.append(text)
        return text

    @cached(cache, ignore=("trace",))
    def traced(x: int, trace: object = None) -> int:
        ran.append(x)
        return x

    assert [folded("A"), folded("a", loud=True)] == ["A", "A"]
    assert [traced(1, object()), traced(1, trace=object())] == [1, 1]
    assert ran == ["A", 1]
    assert folded.invalidate("a")
    assert folded("a") == "a"


def test_options_about_results(cache: LRUCache, clock: VirtualClock) -> None:
    """A condition says what is kept, and a lifetime may depend on the result; 0 is not at all,
    None the default. (S0-37, S0-40, T15)"""
    ran: list[int] = []

    @cached(cache, ttl=lambda x: [None, 0, 10][x], condition=lambda x: x >= 0)
    def echo(x: int) -> int:
        ran.append(x)
        return x

    for _ in range(2):
        for x in (-1, 0, 1, 2):
            echo(x)
    assert sorted(ran) == [-1, -1, 0, 1, 1, 2]
    clock.advance(10)
    echo(0)
    echo(2)
    assert ran.count(2) == 2
    assert ran.count(0) == 1


def test_options_that_make_no_sense_are_refused(cache: LRUCache) -> None:
    """Negative times, a text where texts belong and options there are not are refused. (D91)"""
    for option in ("stale", "stale_if_error", "negative_ttl", "early"):
        for wrong in (-1.0, float("nan")):
            with pytest.raises(InvalidInputError):
                cached(cache, **cast("Options", {option: wrong}))
    with pytest.raises(InvalidInputError):
        cached(cache, tags="weather")
    with pytest.raises(TypeError, match="sticky"):
        cached(cache, sticky=True)  # type: ignore[call-arg]
    with pytest.raises(InvalidInputError, match="no parameter y"):
        cached(cache, ignore=("y",))(lambda x: x)


def test_other_callables_can_be_cached(cache: LRUCache) -> None:
    """Built-in functions and others that are no plain functions are cached by their signature."""
    assert [cached(cache)(len)([1, 2]) for _ in range(2)] == [2, 2]

    class Adder:
        def __call__(self, x: int, y: int = 1) -> int:
            return x + y

    add = cached(cache)(Adder())
    assert [add(1), add(1, 1), add(y=1, x=1)] == [2, 2, 2]
    assert add.cache_info().computed == 1
    assert functools.partial(add, 1)() == 2


def test_a_template_without_its_guards_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks above fail for a wrapper that takes any argument as its own key, or hands out
    what is kept in another form."""

    def careless(way: Any) -> Any:
        find, now, answer = way.find, way.now, way.answer

        def call(x: Any) -> Any:
            try:
                entry = find(x)
            except TypeError:
                entry = None
            if entry is not None and now() < entry.fresh_ns:
                return entry.value
            return answer(x)

        return call

    monkeypatch.setitem(wrappers._TEMPLATES, (False, False, 1), (careless, careless))
    cache = LRUCache(clock=VirtualClock())
    echo = cached(cache)(lambda x: [x])
    echo(1)
    with pytest.raises(AssertionError):
        assert echo(1) == [1]
    show = cached(cache)(repr_of)
    show(1)
    with pytest.raises(AssertionError):
        assert show(True) == "True"


def repr_of(x: Any) -> str:
    return repr(x)


def test_coroutines_are_made_by_the_call(cache: LRUCache) -> None:
    """A cached coroutine function gives a coroutine that can be a task, on a hit as well."""

    @cached(cache)
    async def power(exponent: int) -> int:
        await asyncio.sleep(2)
        return 1 << exponent

    async def main() -> None:
        for _ in range(2):
            assert await asyncio.create_task(power(10)) == 1024
        assert await asyncio.wait_for(power(exponent=10), 1) == 1024
        assert list(await asyncio.gather(power(10), power(10))) == [1024, 1024]

    run(main())


def test_what_is_no_cache_is_named() -> None:
    """Decorating without a cache, or with numbers that are none, says what to write instead."""
    wrong: list[Any] = [lambda: 1, 60, {}, None]
    for thing in wrong:
        with pytest.raises(InvalidInputError, match="no cache") as refused:
            cached(thing)
        assert "LRUCache" in refused.value.next_step
    for make in (
        lambda: LRUCache("5"),  # type: ignore[arg-type]
        lambda: LRUCache(1.5),  # type: ignore[arg-type]
        lambda: LRUCache(5, max_bytes=-1),
        lambda: LRUCache(5, "60"),  # type: ignore[arg-type]
        lambda: cached(LRUCache(5), "5"),  # type: ignore[arg-type]
    ):
        with pytest.raises(InvalidInputError):
            make()


class _Library:
    """Whose methods are cached under one tag."""

    def __init__(self, cache: LRUCache) -> None:
        self.read = 0
        self.book = cached(cache, tags=("books",))(self._book)

    def _book(self, name: str) -> str:
        self.read += 1
        return name


def test_a_tag_reaches_every_function_that_has_it() -> None:
    """Invalidating a tag removes the results of all functions and methods with it, whether the tag
    is of all their results or of some, and no other; it says how many. (S0-38, S0-78)"""
    cache = LRUCache(100)

    class Shelf:
        @cached(cache, tags=("books", "shelves"))
        def count(self, of: str) -> int:
            return len(of)

    @cached(cache, tags=lambda name: ("books",) if name == "book" else ())
    def some(name: str) -> str:
        return name

    @cached(cache)
    def other(name: str) -> str:
        return name

    one, two, library = Shelf(), Shelf(), _Library(cache)
    for name in ("book", "film"):
        for call in (one.count, two.count, library.book, some, other):
            call(name)
    assert len(cache) == 10
    assert cache.invalidate(tag="books") == 7
    assert cache.invalidate(tag="books") == 0
    assert (some.cache_info().entries, other.cache_info().entries) == (1, 2)
    library.book("book")
    assert library.read == 3
