"""A cache to use by itself: `LRUCache`, and `cached` to put one in front of a function."""

import functools
import inspect
import logging
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, ParamSpec, TypeVar, cast, final

import msgspec

from paceline.cache.flight import SingleFlight, ThreadFlight
from paceline.cache.function_keys import FunctionKeys
from paceline.cache.memory import NEVER_NS, MemoryTier, lifetime_ns
from paceline.cache.snapshot import Snapshot
from paceline.clock import Clock, SystemClock
from paceline.errors import CodecError, InvalidInputError

__all__ = ["LRUCache", "LRUStats", "cached"]

P = ParamSpec("P")
R = TypeVar("R")

_log = logging.getLogger("paceline")


class LRUStats(msgspec.Struct, frozen=True):
    """What a cache has done. `expirations` are removals of entries past their time."""

    size: int
    max_size: int
    hits: int
    misses: int
    evictions: int
    expirations: int

    @property
    def total_requests(self) -> int:
        """Look-ups."""
        return self.hits + self.misses

    @property
    def hit_rate(self) -> float:
        """Share of look-ups that were answered, 0..1; 0 before the first."""
        return self.hits / self.total_requests if self.hits else 0.0


@final
class LRUCache:
    """Keeps the `max_size` most recently used values in memory, each until its own expiry.

    `default_ttl` (seconds) is the lifetime of entries put without one; None is for ever. With a
    `max_size` of 0 nothing is kept. None, 0, "" and [] are values like any other. What is
    handed out is a copy where the value can be changed. Safe to use from several threads.
    """

    def __init__(
        self, max_size: int = 1000, default_ttl: float | None = None, *, clock: Clock | None = None
    ) -> None:
        self.max_size = max_size
        self.default_ttl = default_ttl
        self.epoch = 0
        """Changes with every removal: what was computed before may be out of date."""
        self._default_ns = NEVER_NS if default_ttl is None else lifetime_ns(default_ttl)
        self._tier = MemoryTier[Hashable, Snapshot](max_size, clock=clock or SystemClock())
        self._hits = 0
        self._misses = 0

    def __len__(self) -> int:
        return len(self._tier)

    def __contains__(self, key: Hashable) -> bool:
        """Whether there is a valid entry; counts neither as a use nor as a look-up."""
        return self.peek(key) is not None

    def get(self, key: Hashable, default: Any = None) -> Any:
        """The value under this key, or `default`."""
        snapshot = self.lookup(key)
        return default if snapshot is None else snapshot.thaw()

    def lookup(self, key: Hashable) -> Snapshot | None:
        """What is kept under this key, as it is kept; None only if there is nothing."""
        entry = self._tier.get(key)
        if entry is None:
            self._misses += 1
            return None
        self._hits += 1
        return entry.value

    def peek(self, key: Hashable) -> Snapshot | None:
        """As `lookup`, but counts neither as a use nor as a look-up."""
        entry = self._tier.peek(key)
        return None if entry is None else entry.value

    def put(self, key: Hashable, value: object, ttl: float | None = None) -> None:
        """Stores a value for `ttl` seconds; None is the default, 0 not at all.

        Raises InvalidInputError for a negative `ttl`, CodecError for a value that can be
        neither encoded nor copied.
        """
        self.keep(key, Snapshot.take(value), ttl)

    def keep(self, key: Hashable, snapshot: Snapshot, ttl: float | None = None) -> None:
        """Stores a snapshot, as `put` does a value."""
        self._tier.put(key, snapshot, self._default_ns if ttl is None else lifetime_ns(ttl))

    def delete(self, key: Hashable) -> bool:
        """Removes an entry; whether a valid one was there."""
        self.epoch += 1
        return self._tier.delete(key)

    def clear(self) -> int:
        """Removes all entries; how many that were. Figures stay, see `reset_stats`."""
        self.epoch += 1
        return self._tier.clear()

    def stats(self) -> LRUStats:
        """What this cache has done since it was made or `reset_stats`."""
        return LRUStats(
            size=len(self._tier),
            max_size=self.max_size,
            hits=self._hits,
            misses=self._misses,
            evictions=self._tier.evictions,
            expirations=self._tier.expirations,
        )

    def get_stats(self) -> dict[str, int | str]:
        """The figures as a dictionary to show, `hit_rate` as text such as "75.0%"."""
        stats = self.stats()
        return {
            "size": stats.size,
            "max_size": stats.max_size,
            "hits": stats.hits,
            "misses": stats.misses,
            "hit_rate": f"{stats.hit_rate:.1%}",
            "total_requests": stats.total_requests,
        }

    def reset_stats(self) -> None:
        """Sets all figures to 0; entries stay."""
        self._hits = self._misses = 0
        self._tier.evictions = self._tier.expirations = 0


def cached(
    cache: LRUCache, ttl: float | None = None, *, version: str = ""
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Keeps a function's results in `cache`, for `ttl` seconds (None: the cache's default).

    For functions and methods, synchronous or async. All ways to write a call share one result;
    calls of different functions or, for methods, instances share none. Calls made while one is
    under way wait for its result, and each caller gets a value of its own. Exceptions are not
    kept. A result that can be neither encoded nor copied is handed out and not kept.

    Raises InvalidInputError for a generator function and a negative `ttl`; calling the function
    raises UnkeyableError for arguments that have no canonical form.
    """
    if ttl is not None:
        lifetime_ns(ttl)  # raises for a lifetime that makes no sense

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise InvalidInputError(
                f"{function.__qualname__} is a generator: it can be consumed only once",
                next_step="Cache a function that returns a list.",
            )
        keys = FunctionKeys(function, version=version)
        if inspect.iscoroutinefunction(function):
            return cast("Callable[P, R]", _cached_async(cache, ttl, keys, function))
        return _cached_sync(cache, ttl, keys, function)

    return decorate


def _cached_sync(
    cache: LRUCache, ttl: float | None, keys: FunctionKeys, function: Callable[P, R]
) -> Callable[P, R]:
    flight = ThreadFlight[tuple[int, Hashable], tuple[R, Snapshot | None]]()

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        key = keys.key(args, kwargs)
        if (snapshot := cache.lookup(key)) is not None:
            return cast("R", snapshot.thaw())
        epoch = cache.epoch

        def make() -> tuple[R, Snapshot | None]:
            # Another thread may have come to its end since we looked.
            if (found := cache.peek(key)) is not None:
                return cast("R", found.thaw()), found
            value = function(*args, **kwargs)
            return value, _store(cache, key, value, ttl, epoch)

        # A removal in the meantime starts a new flight: its result may differ.
        result, joined = flight.run((epoch, key), make)
        return _own(result, joined=joined)

    return call


def _cached_async(
    cache: LRUCache,
    ttl: float | None,
    keys: FunctionKeys,
    function: Callable[P, Coroutine[Any, Any, R]],
) -> Callable[P, Coroutine[Any, Any, R]]:
    flight = SingleFlight[tuple[int, Hashable], tuple[R, Snapshot | None]]()

    @functools.wraps(function)
    async def call(*args: P.args, **kwargs: P.kwargs) -> R:
        key = keys.key(args, kwargs)
        if (snapshot := cache.lookup(key)) is not None:
            return cast("R", snapshot.thaw())
        epoch = cache.epoch

        async def make() -> tuple[R, Snapshot | None]:
            value = await function(*args, **kwargs)
            return value, _store(cache, key, value, ttl, epoch)

        result, joined = await flight.run((epoch, key), make)
        return _own(result, joined=joined)

    return call


def _store(
    cache: LRUCache, key: Hashable, value: object, ttl: float | None, epoch: int
) -> Snapshot | None:
    """Keeps a result, unless something was removed while it was computed."""
    try:
        snapshot = Snapshot.take(value)
    except CodecError as exc:
        _log.info("a result is not cached: %s", exc)
        return None
    if cache.epoch == epoch:
        cache.keep(key, snapshot, ttl)
    return snapshot


def _own(result: tuple[R, Snapshot | None], *, joined: bool) -> R:
    """The result for one caller: the value itself for who computed it, a copy for the others."""
    value, snapshot = result
    return cast("R", snapshot.thaw()) if joined and snapshot is not None else value
