"""What is kept in memory and in the file, as one list."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, Literal, NamedTuple, final

import msgspec

from paceline.cache.disk.reader import DiskReader, bounds
from paceline.cache.disk.rows import Listed, Order
from paceline.cache.entry import PLAIN, About, Entry
from paceline.cache.memory.tier import NEVER_NS, MemoryTier
from paceline.cache.snapshot import Snapshot
from paceline.cache.statistics import Totals
from paceline.clock import Clock
from paceline.codec import decode
from paceline.errors import Category, UsageError

__all__ = [
    "Moment",
    "OpenedResult",
    "Order",
    "ResultStats",
    "Shelves",
    "StoredResult",
    "TierName",
    "TierStats",
    "the_result",
]

TierName = Literal["hot", "warm"]

_NS: Final = 1_000_000_000
_FOREVER_S: Final = NEVER_NS / _NS / 2


class StoredResult(msgspec.Struct, frozen=True):
    """A result that is kept. Times in seconds.

    `key` is in hexadecimal digits; `scope` says who may see it; `summary` is its input in a line,
    without secrets. `age_s` is None where it is in memory only. `remaining_s` is None if it never
    expires; 0 or less if it has, and is kept to be served in need. `size_bytes` is that of its
    encoding, else an estimate. `cost_s` is what computing it took.
    """

    key: str
    name: str
    scope: str
    summary: str
    tags: tuple[str, ...]
    tiers: tuple[TierName, ...]
    size_bytes: int
    age_s: float | None
    remaining_s: float | None
    cost_s: float
    cost_usd: float


class OpenedResult(NamedTuple):
    """A result that is kept, and its value: data, where its type is not known."""

    result: StoredResult
    value: object


class TierStats(msgspec.Struct, frozen=True):
    """What a tier holds, and its removals by reason since it was opened."""

    entries: int
    bytes: int
    removed: dict[str, int]


class ResultStats(msgspec.Struct, frozen=True):
    """What the cache of a runtime has done, all the time or in a window of it, and what it holds.

    `totals` are the counters; see `paceline.cache.statistics.Totals`. `warm` is None without a
    file. One request counts once, whichever tier answers it.
    """

    window_s: float | None
    totals: Totals
    hot: TierStats
    warm: TierStats | None

    @property
    def hit_rate(self) -> float:
        """Share of requests that any tier answered, 0..1."""
        return self.totals.hit_rate

    @property
    def tier_rates(self) -> dict[str, float]:
        """The same by tier; their sum is the hit rate."""
        counts = {
            "hot": self.totals.hot_hits,
            "warm": self.totals.warm_hits,
            "cold": self.totals.cold_hits,
        }
        requests = self.totals.requests
        return {tier: count / requests if requests else 0.0 for tier, count in counts.items()}


@final
class Moment:
    """A clock that stands still: a list is of one moment."""

    __slots__ = ("_monotonic_ns", "_wall_ns")

    def __init__(self, clock: Clock) -> None:
        self._monotonic_ns = clock.monotonic_ns()
        self._wall_ns = clock.wall_ns()

    def monotonic_ns(self) -> int:
        """As `Clock` has it."""
        return self._monotonic_ns

    def wall_ns(self) -> int:
        """As `Clock` has it."""
        return self._wall_ns


@final
class Shelves:
    """The tiers of this machine, as they are at one moment. Everything here may wait for the file:
    not for an event loop."""

    def __init__(
        self,
        memory: MemoryTier[bytes, Snapshot] | None,
        file: Path | None,
        *,
        clock: Clock,
        flush: Callable[[], object] = bool,
    ) -> None:
        """`flush` waits until the file has what was stored and removed before."""
        self._clock = Moment(clock)
        self._memory = memory
        self._reader = DiskReader(file, clock=self._clock) if file is not None else None
        self._flush = flush

    def entries(
        self, limit: int, order: Order = "stored", *, name: str | None = None
    ) -> list[StoredResult]:
        """What is kept, of one agent or all, each once: the last stored, next to expire, largest
        or dearest first."""
        held = {
            entry.key: entry for entry in self._held() if name is None or _about(entry).name == name
        }
        rows: dict[bytes, Listed] = {}
        if self._reader is not None:
            self._flush()
            rows = {row.key: row for row in self._reader.entries(limit, order, name=name)}
            rows |= self._reader.find_all(held.keys() - rows.keys())
        found = [self._described(key, held.get(key), rows.get(key)) for key in held | rows]
        return sorted(found, key=_ORDERS[order])[:limit]

    def find(self, prefix: str) -> list[StoredResult]:
        """What is kept under keys that begin so, in hexadecimal digits; two at most. Raises
        UsageError for what are no such digits."""
        try:
            low, high = bounds(prefix)
        except ValueError as exc:
            raise UsageError(
                f"{prefix!r} is not the beginning of a key",
                next_step="Keys are hexadecimal digits; `paceline cache ls` shows them.",
            ) from exc
        held = {e.key: e for e in self._held() if low <= e.key <= high}
        rows: dict[bytes, Listed] = {}
        if self._reader is not None:
            self._flush()
            rows = {row.key: row for row in self._reader.find(prefix)}
            rows |= self._reader.find_all(held.keys() - rows.keys())
        return [self._described(key, held.get(key), rows.get(key)) for key in held | rows][:2]

    def value(self, key: bytes) -> object:
        """The value that is kept under this key, the caller's own. Raises UsageError if there is
        none any more, CodecError if it cannot be read."""
        entry = self._memory.find(key) if self._memory is not None else None
        if entry is not None:
            return entry.value.thaw()
        found = self._reader.get(key) if self._reader is not None else None
        if found is None:
            raise _missing(key.hex())
        return decode(found.value)

    def names(self, prefix: str) -> set[str]:
        """The names of agents that begin so and have results here."""
        names = {_about(e).name for e in self._held() if _about(e).name.startswith(prefix)}
        if self._reader is not None:
            self._flush()
            names.update(self._reader.names(prefix))
        return names - {""}

    def _held(self) -> Iterable[Entry]:
        now_ns = self._clock.monotonic_ns()
        entries = self._memory.entries() if self._memory is not None else []
        return [entry for entry in entries if now_ns < _end_ns(entry)]

    def _described(self, key: bytes, entry: Entry | None, row: Listed | None) -> StoredResult:
        about = _about(entry) if entry is not None else row.about if row is not None else PLAIN
        size = row.size_bytes if row is not None else 0
        if row is None and entry is not None:
            size = _size(entry)
        hot: tuple[TierName, ...] = ("hot",) if entry is not None else ()
        warm: tuple[TierName, ...] = ("warm",) if row is not None else ()
        return StoredResult(
            key=key.hex(),
            name=about.name,
            scope=about.scope,
            summary=about.summary,
            tags=about.tags,
            tiers=hot + warm,
            size_bytes=size,
            age_s=(self._clock.wall_ns() - row.stored_ns) / _NS if row is not None else None,
            remaining_s=self._remaining_s(about, entry, row),
            cost_s=about.cost_ns / _NS,
            cost_usd=about.cost_usd,
        )

    def _remaining_s(self, about: About, entry: Entry | None, row: Listed | None) -> float | None:
        if entry is not None:
            expires_ns = entry.fresh_ns if entry.terms is None else entry.terms.expires_ns
            left_s = (expires_ns - self._clock.monotonic_ns()) / _NS
        elif row is not None:
            left_s = (row.remaining_ns - max(about.stale_ns, about.rescue_ns)) / _NS
        else:
            return None
        return None if left_s > _FOREVER_S else left_s


def the_result(prefix: str, found: list[StoredResult]) -> StoredResult:
    """Which result is meant by the beginning of its key. Raises UsageError if that is not clear."""
    if not prefix:
        raise UsageError(
            "no key was given", next_step="Give its beginning; `paceline cache ls` shows keys."
        )
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(
            f"the keys of several results begin with {prefix!r}", next_step="Give more digits."
        )
    raise _missing(prefix)


def _missing(key: str) -> UsageError:
    return UsageError(
        f"no result is kept under {key!r}",
        next_step="List what there is with `paceline cache ls`.",
        category=Category.NOT_FOUND,
    )


def _about(entry: Entry) -> About:
    return entry.terms.about if entry.terms is not None else PLAIN


def _end_ns(entry: Entry) -> int:
    return entry.fresh_ns if entry.terms is None else entry.terms.rescue_ns


def _size(entry: Entry) -> int:
    held = entry.value.held
    return len(held) if isinstance(held, (bytes, str)) else entry.weight


def _by_age(result: StoredResult) -> float:
    return result.age_s or 0.0


def _by_expiry(result: StoredResult) -> float:
    return float("inf") if result.remaining_s is None else result.remaining_s


def _by_size(result: StoredResult) -> float:
    return -result.size_bytes


def _by_cost(result: StoredResult) -> float:
    return -result.cost_s


_ORDERS: Final[dict[Order, Callable[[StoredResult], float]]] = {
    "stored": _by_age,
    "expiry": _by_expiry,
    "size": _by_size,
    "cost": _by_cost,
}
