"""`TieredCache`: a cache to use by itself whose tiers are a stack: hot, warm and cold."""

from collections.abc import Callable, Hashable, Iterable
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Literal, Self, TypedDict, Unpack, final

import msgspec

from paceline.cache.entry import PLAIN, About, Entry, Table
from paceline.cache.memory.tier import NEVER_NS, lifetime_ns
from paceline.cache.snapshot import Form, hold, thaw
from paceline.cache.stack.levels import DiskShelf, IndexedLevel, Kept, Level
from paceline.cache.stack.stack import TierStack
from paceline.cache.stack.store import Store, StoreLevel
from paceline.cache.statistics import Totals, Windows
from paceline.clock import Clock, SystemClock
from paceline.errors import InvalidInputError

__all__ = ["CacheTier", "Places", "TierStats", "TieredCache", "TieredStats"]

_SHARED: Final = Form.SHARED
_NS_PER_MS: Final = 1_000_000
_STEP_NS: Final = 10_000_000_000
_FILE: Final = "tiers.db"


class CacheTier(StrEnum):
    """Where a value is put; the fastest first."""

    HOT = "hot"
    WARM = "warm"
    COLD = "cold"


_PLACES: Final = {str(tier): place for place, tier in enumerate(CacheTier)}


class Places(TypedDict, total=False):
    """Where the lower tiers are, if not in memory, and what tells the time."""

    directory: Path | str | None
    cold: Store | None
    clock: Clock | None


class TierStats(msgspec.Struct, frozen=True):
    """What one tier holds and has done.

    `hits` are the requests it answered, `share` their part of all hits (0..1) and `mean_ns` how
    long they took, without those that a decorated function answered by itself. `promoted` were
    lifted out of it into the hot tier, `demoted` sank from it, `dropped` had to leave for good,
    `expirations` are removals because the time was over.
    """

    size: int
    max_size: int
    hits: int
    share: float
    mean_ns: float
    promoted: int
    demoted: int
    dropped: int
    expirations: int


class TieredStats(msgspec.Struct, frozen=True):
    """What a cache has done. One request counts once, whichever tier answers it."""

    totals: Totals
    hot: TierStats
    warm: TierStats
    cold: TierStats

    @property
    def hit_rate(self) -> float:
        """Share of all requests that any tier answered, 0..1; 0 before the first."""
        return self.totals.hit_rate


@final
class TieredCache:
    """Keeps the values used last in a small fast tier and others below it, each in one place.

    Each tier keeps `..._size` values (0: none). A value put without a lifetime of its own lives
    for the `..._ttl` seconds of the tier it is put into (None: for ever), and no move changes
    when it ends. A hit lifts it into the hot tier; what has to make room sinks into the next
    tier, and out of the last. None, 0, "" and [] are values like any other. What is handed out
    is a copy where the value can be changed.

    All tiers are in memory, unless a `directory` is given, in which the warm one keeps a file
    that outlives the process, or a store (`cold`), which then bounds itself. `close` writes what
    is hot, too. Then keys need a canonical form (`paceline.cache.keys`) and values a stored one
    (`paceline.codec`). A directory is for one cache at a time: others would not see its changes.

    Safe to use from several threads. A hit in the hot tier takes no lock; all others do, one for
    the whole cache, so a slow store makes everybody wait who does not hit.
    """

    def __init__(
        self,
        hot_size: int = 100,
        warm_size: int = 500,
        cold_size: int = 2000,
        *,
        hot_ttl: float | None = 300,
        warm_ttl: float | None = 1800,
        cold_ttl: float | None = 3600,
        **places: Unpack[Places],
    ) -> None:
        """`places` are `directory`, `cold` and `clock`. Raises InvalidInputError for a negative
        size or lifetime, TypeError for any other keyword."""
        where = _Where(**places)
        clock = where.clock or SystemClock()
        self._lifetimes = [_lifetime_ns(ttl) for ttl in (hot_ttl, warm_ttl, cold_ttl)]
        shelf = None
        if where.directory is not None and warm_size:
            shelf = DiskShelf(Path(where.directory) / _FILE, clock=clock)
        warm = IndexedLevel(warm_size, clock=clock, shelf=shelf)
        cold: Level = IndexedLevel(cold_size, clock=clock)
        if where.cold is not None:
            cold = StoreLevel(where.cold, cold_size, clock=clock)
        self.tier = TierStack(hot_size, (warm, cold), clock=clock)
        """What holds the entries, of cached functions too."""
        self.recall: Callable[[Hashable, Table], Entry | None] | None = self.tier.recall
        """What finds results of functions below the first tier."""
        self.hold = hold
        self.default_ns = self._lifetimes[0]
        self.negative_ttl: float | None = None
        self.weighs_cost = False
        """The order of eviction is that of use, whatever a result cost."""
        self._in_bytes = self.tier.in_bytes
        self._get_hot = self.tier.hot.get
        self._now_ns = clock.monotonic_ns
        self._windows = Windows()
        self._mark_ns = clock.monotonic_ns()
        self._hot_ns = 0
        self._hot_gets = 0

    def __repr__(self) -> str:
        hot = self.tier.hot
        sizes = [f"{len(hot)}/{hot.max_entries}"]
        sizes += [f"{len(level)}/{level.max_entries}" for level in self.tier.levels]
        tiers = zip(CacheTier, sizes, strict=True)
        return f"TieredCache({', '.join([f'{name}={size}' for name, size in tiers])})"

    def __len__(self) -> int:
        """Values kept, as far as is known: what is in a store of yours is not counted."""
        return len(self.tier)

    def __contains__(self, key: Hashable) -> bool:
        """Whether there is a valid value; counts neither as a use nor as a request."""
        return self.tier.has(self.tier.key(key))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(self, key: Hashable, default: Any = None) -> Any:
        """The value under this key, from the highest tier that has it, or `default`."""
        if self._in_bytes:
            key = self.tier.key(key)
        start_ns = self._now_ns()
        entry = self._get_hot(key)
        if entry is not None:
            # As with the count of an entry: nothing is called between reading and writing.
            now_ns = self._now_ns()
            self._hot_ns += now_ns - start_ns
            self._hot_gets += 1
        else:
            entry = self.tier.lift(key)
            now_ns = start_ns
            if entry is None:
                self.tier.misses += 1
        if now_ns >= self._mark_ns:
            self._mark()
        if entry is None:
            return default
        return entry.value if entry.form is _SHARED else thaw(entry.form, entry.value)

    def put(
        self,
        key: Hashable,
        value: object,
        priority: CacheTier | Literal["hot", "warm", "cold"] = "warm",
        ttl: float | None = None,
        *,
        tags: Iterable[str] = (),
    ) -> None:
        """Stores a value for `ttl` seconds in the tier named by `priority`, in place of what any
        tier has under this key. None is the lifetime of that tier, 0 stores nothing.

        A value that is in a higher tier already stays there: so replacing one pushes out no
        other. A tier that keeps none, or not one so large, leaves it to the next.

        Raises InvalidInputError for a tier there is not and a negative `ttl`, CodecError for a
        value that a tier cannot keep, StorageError if the store of the cold tier does not remove
        the older value.
        """
        place = _place(priority)
        ttl_ns = self._lifetimes[place] if ttl is None else lifetime_ns(ttl)
        form, held = hold(value)
        name = key if isinstance(key, str) else ""
        tags = tuple(tags)
        about = About(name=name, tags=tags) if name or tags else PLAIN
        now_ns = self._now_ns()
        expires_ns = NEVER_NS if ttl_ns >= NEVER_NS else now_ns + ttl_ns
        self.tier.place(self.tier.key(key), Kept(form, held, expires_ns, about), place)
        self._mark()

    def delete(self, key: Hashable) -> bool:
        """Removes a value from whichever tier has it; whether a valid one was there."""
        return self.tier.delete(self.tier.key(key))

    def clear(self) -> int:
        """Removes everything; how many values that were, as far as is known."""
        return self.tier.clear()

    def invalidate(
        self,
        *,
        tag: str | None = None,
        prefix: str | None = None,
        predicate: Callable[[About], bool] | None = None,
    ) -> int:
        """Removes the values with a tag, with a beginning of their name (a key that is text, or
        the `module.function` of what was cached), or of which something is true; of several
        conditions all must hold. Returns how many those were. A store of yours, which cannot be
        searched, is cleared.
        """
        if tag is None and prefix is None and predicate is None:
            raise InvalidInputError(
                "invalidate was told nothing to look for", next_step="Use clear for everything."
            )
        return self.tier.invalidate(tag=tag, prefix=prefix, predicate=predicate)

    def close(self) -> None:
        """Writes what is hot to the `directory`, if there is one; not to be used after it."""
        self.tier.close()

    def stats(self) -> TieredStats:
        """What this cache has done since it was made."""
        self._mark()
        totals = self._totals()
        hits = totals.hits
        hot_hits, hot = totals.hot_hits, self.tier.hot
        sizes = [(len(hot), hot.max_entries, hot.expirations)]
        sizes += [(len(each), each.max_entries, each.expirations) for each in self.tier.levels]
        tiers: list[TierStats] = []
        for (size, max_size, expirations), traffic in zip(sizes, self.tier.traffic, strict=True):
            answered, timed, took_ns = traffic.hits, traffic.hits, traffic.hit_ns
            if not tiers:
                answered, timed, took_ns = hot_hits, self._hot_gets, self._hot_ns
            tiers.append(
                TierStats(
                    size=size,
                    max_size=max_size,
                    hits=answered,
                    share=answered / hits if hits else 0.0,
                    mean_ns=took_ns / timed if timed else 0.0,
                    promoted=traffic.promoted,
                    demoted=traffic.demoted,
                    dropped=traffic.dropped,
                    expirations=expirations,
                )
            )
        return TieredStats(totals, *tiers)

    def recent(self, window_s: float) -> Totals:
        """What was done in about the last `window_s` seconds, to about 10 s, up to an hour."""
        self._mark()
        return self._windows.last(window_s, self._now_ns(), self._totals())

    def get_stats(self) -> dict[str, dict[str, int | float | str]]:
        """The figures as a dictionary to show, by tier and `"overall"`.

        The `hit_rate` of a tier is the share of all requests that it answered, so they add up to
        the overall one; as text such as "75.0%".
        """
        stats = self.stats()
        requests = stats.totals.requests
        shown: dict[str, dict[str, int | float | str]] = {}
        for name, tier in (("hot", stats.hot), ("warm", stats.warm), ("cold", stats.cold)):
            shown[name] = {
                "size": tier.size,
                "max_size": tier.max_size,
                "hits": tier.hits,
                "hit_rate": f"{tier.hits / requests if requests else 0:.1%}",
                "share_of_hits": f"{tier.share:.1%}",
                "avg_ms": tier.mean_ns / _NS_PER_MS,
                "promoted": tier.promoted,
                "demoted": tier.demoted,
                "dropped": tier.dropped,
                "expired": tier.expirations,
            }
        shown["overall"] = {
            "size": len(self),
            "max_size": stats.hot.max_size + stats.warm.max_size + stats.cold.max_size,
            "hits": stats.totals.hits,
            "misses": stats.totals.misses,
            "hit_rate": f"{stats.hit_rate:.1%}",
            "total_requests": requests,
        }
        return shown

    def _totals(self) -> Totals:
        hot, warm, cold = self.tier.traffic
        return Totals(
            hot_hits=hot.hits + self.tier.hot.stats().hits,
            warm_hits=warm.hits,
            cold_hits=cold.hits,
            misses=self.tier.misses,
            stored=self.tier.stored,
        )

    def _mark(self) -> None:
        now_ns = self._now_ns()
        if now_ns >= self._mark_ns:
            self._mark_ns = now_ns + _STEP_NS
            self._windows.mark(now_ns, self._totals())


class _Where(msgspec.Struct, frozen=True, kw_only=True):
    """`Places` with its defaults; refuses other keywords."""

    directory: Path | str | None = None
    cold: Store | None = None
    clock: Clock | None = None


def _lifetime_ns(ttl: float | None) -> int:
    return NEVER_NS if ttl is None else lifetime_ns(ttl)


def _place(priority: str) -> int:
    place = _PLACES.get(priority)
    if place is None:
        raise InvalidInputError(
            f"there is no tier {priority!r}", next_step=f"Use one of {', '.join(_PLACES)}."
        )
    return place
