"""`cached`: a cache in front of a function."""

import inspect
import reprlib
from collections.abc import Callable, Collection, Iterable
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    ParamSpec,
    Protocol,
    Self,
    TypedDict,
    TypeVar,
    Unpack,
    cast,
    overload,
)  # fmt: skip

from paceline.cache.function.keys import FunctionKeys
from paceline.cache.function.memo import AsyncMemo, CacheInfo, Rules, SyncMemo
from paceline.cache.function.wrappers import Shape, wrap
from paceline.cache.memory.tier import lifetime_ns
from paceline.errors import InvalidInputError

if TYPE_CHECKING:
    from paceline.cache.lru import LRUCache
    from paceline.cache.stack.cache import TieredCache

__all__ = ["CachedFunction", "Options", "cached"]

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class CachedFunction(Protocol[P, R_co]):
    """A function with a cache in front. Of a method, the first argument is the instance:
    `Thing.method.invalidate(thing, 1)`."""

    @property
    def __wrapped__(self) -> Callable[P, R_co]:
        """The function itself."""
        ...

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """The result, kept or computed."""
        ...

    def bypass(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """The result, computed; nothing is looked up and nothing kept."""
        ...

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Removes what is kept of this call; whether there was something valid."""
        ...

    def cache_info(self) -> CacheInfo:
        """What the cache in front has done."""
        ...

    def cache_clear(self) -> int:
        """Removes what is kept of this function; how many results that was."""
        ...

    @overload
    def __get__(self, instance: None, owner: type[Any] | None = None) -> Self: ...
    @overload
    def __get__(
        self: "CachedFunction[Concatenate[Any, Q], R]",
        instance: object,
        owner: type[Any] | None = None,
    ) -> Callable[Q, R]: ...


class Options(TypedDict, total=False):
    """What `cached` can be told beside the lifetime."""

    version: str
    key: Callable[..., object]
    ignore: Collection[str]
    tags: Iterable[str] | Callable[..., Iterable[str]]
    scope: Callable[[], object]
    condition: Callable[[Any], object]
    negative_ttl: float
    stale: float
    stale_if_error: float
    early: float


def cached(
    cache: "LRUCache | TieredCache",
    ttl: float | Callable[[Any], float | None] | None = None,
    **options: Unpack[Options],
) -> Callable[[Callable[P, R]], CachedFunction[P, R]]:
    """Keeps a function's results in `cache`, for `ttl` seconds (None: the cache's default; or
    what tells it from a result).

    For functions and methods, synchronous or async. All ways to write a call share one result;
    calls of different functions or, for methods, instances share none. Calls made while one is
    under way wait for its result, and each caller gets a value of its own. What was computed
    before a removal is handed out and not kept. A result that can be neither encoded nor copied
    is handed out and not kept.

    Options, times in seconds:

    - `version`: a text to change when results of before do not count any more
    - `key`: makes of the arguments the value that tells calls apart; of a method, of all of them
    - `ignore`: names of parameters that make no difference
    - `tags`: of the results, for `LRUCache.invalidate`; or what tells them from the arguments
    - `scope`: tells who may share a result, such as the current user: part of every key
    - `condition`: tells from a result whether to keep it
    - `negative_ttl`: how long to keep an exception and raise it again; else they are not kept
    - `stale`: how long after its lifetime a result is served while it is computed anew, in a
      task behind, or by one caller of a synchronous function
    - `stale_if_error`: how long after its lifetime it is served if computing it anew fails
    - `early`: compute anew before the lifetime is over, at random, the earlier the longer it
      takes; 1 is a good value (see `MemoryTier.put`)

    Raises InvalidInputError for a generator function and what makes no sense; calling the
    function raises UnkeyableError for arguments that have no canonical form.
    """
    rules = _rules(cache, ttl, options)

    def decorate(function: Callable[P, R]) -> CachedFunction[P, R]:
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise InvalidInputError(
                f"{function.__qualname__} is a generator: it can be consumed only once",
                next_step="Cache a function that returns a list.",
            )
        keys = FunctionKeys(
            function,
            version=options.get("version", ""),
            ignore=options.get("ignore", ()),
            key=options.get("key"),
        )
        is_async = inspect.iscoroutinefunction(function)
        memo = (AsyncMemo if is_async else SyncMemo)(cache, function, keys, rules)
        shape = Shape(is_async, keys.is_method, rules.scope is not None, keys.fixed)
        wrapper = wrap(function, shape, memo.shortcut(memo.answer))
        wrapper.bypass = function
        wrapper.invalidate = memo.invalidate
        wrapper.cache_info = memo.info
        wrapper.cache_clear = memo.clear
        return cast("CachedFunction[P, R]", wrapper)

    return decorate


def _rules(
    cache: "LRUCache | TieredCache",
    ttl: float | Callable[[Any], float | None] | None,
    options: Options,
) -> Rules:
    if not hasattr(cache, "weighs_cost"):  # a protocol of our caches, cheaper than their classes
        raise InvalidInputError(
            f"cached() was given {reprlib.repr(cache)}, which is no cache",
            next_step="Write @cached(LRUCache(1000)).",
        )
    if ttl is not None and not callable(ttl):
        lifetime_ns(ttl)  # raises for a lifetime that makes no sense
    unknown = set(options) - Options.__annotations__.keys()
    if unknown:
        raise TypeError(f"cached() got an unexpected keyword argument {min(unknown)!r}")
    tags = options.get("tags", ())
    early = options.get("early", 0.0)
    if isinstance(tags, str) or isinstance(options.get("ignore"), str) or not early >= 0:
        raise InvalidInputError(
            "tags and ignore are collections of texts, and early is not negative",
            next_step='Write tags=("one",) instead of tags="one".',
        )
    negative = options.get("negative_ttl", cache.negative_ttl)
    return Rules(
        ttl=ttl,
        tags=tags if callable(tags) else tuple(tags),
        scope=options.get("scope"),
        condition=options.get("condition"),
        negative_ns=0 if negative is None else lifetime_ns(negative),
        stale_ns=lifetime_ns(options.get("stale", 0.0)),
        rescue_ns=lifetime_ns(options.get("stale_if_error", 0.0)),
        early=early,
    )
