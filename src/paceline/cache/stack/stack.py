"""Tiers one below the other, of which exactly one holds a value.

A hit below lifts a value into the hot tier; what has to make room there sinks, tier by tier, and
is lost only where there is none left below. No move changes when a value ends.
"""

import functools
import threading
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Final, NamedTuple, final

import msgspec

from paceline.cache.entry import PLAIN, About, Entry, FullEntry, Table, Terms
from paceline.cache.keys import digest
from paceline.cache.memory.tier import MemoryTier, name_of
from paceline.cache.snapshot import Form
from paceline.cache.stack.levels import Kept, Level, payload_of, remaining_ns
from paceline.clock import Clock
from paceline.errors import CodecError

__all__ = ["TierStack", "Traffic"]

_BARE: Final = About()
"""As PLAIN, but not that very object: an entry with it has terms, which outlive its eviction."""


class Traffic(msgspec.Struct):
    """What went through one tier: requests it answered and nanoseconds they took, values that
    were lifted into the hot one, that sank to one below, and that were pushed out for good."""

    hits: int = 0
    hit_ns: int = 0
    promoted: int = 0
    demoted: int = 0
    dropped: int = 0


class _Of(NamedTuple):
    """Below the hot tier, the key of a function's result."""

    table: Table
    key: Hashable


@final
class TierStack:
    """A memory tier and levels below it; for the rest it is used as a MemoryTier is.

    A hit in the hot tier takes no lock. All else does, one for the whole stack, so that nobody
    sees a value between two tiers, and none is lifted while it is removed.

    Keys of tables other than the main one (those of functions) stay in memory: their names say
    nothing to another process.
    """

    def __init__(self, hot_size: int, levels: Sequence[Level], *, clock: Clock) -> None:
        self.hot = MemoryTier[Hashable, Any](hot_size, clock=clock, on_evict=self._sink_hot)
        self.levels = tuple(levels)
        self.in_bytes = any(level.in_bytes for level in self.levels)
        self.traffic = [Traffic() for _ in range(1 + len(self.levels))]
        self.misses = 0
        self.stored = 0
        self.main = self.hot.main
        self.now_ns = self.hot.now_ns
        self.due = self.hot.due
        self.register = self.hot.register
        self.touch = self.hot.touch
        self.expire = self.hot.expire
        self.outdated = self.hot.outdated
        self.abandon = self.hot.abandon
        self._lock = threading.RLock()
        for place, level in enumerate(self.levels, 1):
            level.spill = functools.partial(self._sink, place)

    def __len__(self) -> int:
        return len(self.hot) + sum([len(level) for level in self.levels])

    @property
    def epoch(self) -> int:
        """Changes with every removal by request."""
        return self.hot.epoch

    def key(self, key: Hashable) -> Hashable:
        """The key of the main table for a key of the user's.

        Where tiers go by bytes, keys of which `==` says less than their bytes are digested:
        else 1 and True would be one key above and two below. Raises UnkeyableError.
        """
        return digest(key) if self.in_bytes and type(key) is not str else key

    def recall(self, key: Hashable, table: Table) -> Entry | None:
        """The fresh entry of a function's result that is not in the hot tier; now it is.

        It has a use less than there were: this one was counted where it came from.
        """
        entry = self.lift(key, table) if self.hot.max_entries else None
        if entry is not None:
            entry.uses -= 1
        return entry

    def lift(self, key: Hashable, table: Table | None = None) -> Entry | None:
        """The fresh entry of this key from below, now in the hot tier if that keeps any.

        Raises StorageError if it could not be taken from where it was.
        """
        start_ns = self.now_ns()
        with self._lock:
            entry = self.hot.find(key, table)
            if entry is not None and self.now_ns() < entry.fresh_ns:
                entry.uses += 1  # another thread was faster
                self.touch(entry)
                return entry
            low = self._low(key, table)
            for place, level in enumerate(self.levels, 1):
                kept = level.get(low) if _fits(low, level) else None
                if kept is None:
                    continue
                traffic = self.traffic[place]
                if self.hot.max_entries:
                    level.delete(low)
                    entry = self._put_hot(key, kept, table)
                    traffic.promoted += 1
                else:
                    entry = FullEntry(key, kept.held, kept.expires_ns)
                    entry.form = kept.form
                traffic.hits += 1
                traffic.hit_ns += self.now_ns() - start_ns
                return entry
        return None

    def place(self, key: Hashable, kept: Kept, wanted: int) -> None:
        """Stores a value in the tier of this number, 0 being the hot one, in place of what is
        there in any. What is in a higher tier already stays up there, so that it pushes out
        nobody.

        Raises CodecError if a tier below could not take it in, StorageError if another keeps
        the value that was to be replaced.
        """
        if self.in_bytes and payload_of(kept) is None:
            raise CodecError("this value has no stored form, and a lower tier goes by bytes")
        with self._lock:
            if self.now_ns() >= kept.expires_ns:
                self.delete(key)
                return
            self.stored += 1
            low = self._low(key, None)
            at = self._at(key, low, kept, wanted)
            if at != 0:
                self.hot.delete(key)
            for place, level in enumerate(self.levels, 1):
                if place != at:
                    level.delete(low)
            if at == 0:
                self._put_hot(key, kept, None)
            elif at is not None:
                self.levels[at - 1].put(low, kept)

    def put(
        self,
        key: Hashable,
        value: Any,
        ttl_ns: int,
        *,
        table: Table | None = None,
        form: Form = Form.SHARED,
        about: About = PLAIN,
        early: float = 0.0,
        since: int | None = None,
    ) -> Entry | None:
        """As `MemoryTier.put`: stores a value in the hot tier, in place of what is in any."""
        if about is PLAIN:
            about = _BARE
        with self._lock:
            if since is not None and self.outdated(
                since, key, about.tags, table=self.main if table is None else table
            ):
                return None
            self.stored += 1
            self._delete_below(self._low(key, table))
            return self.hot.put(
                key, value, ttl_ns, table=table, form=form, about=about, early=early
            )

    def has(self, key: Hashable) -> bool:
        """Whether there is a valid value, which is no use of it."""
        if self.hot.peek(key) is not None:
            return True
        with self._lock:
            return self.hot.peek(key) is not None or self._is_below(self._low(key, None))

    def delete(self, key: Hashable, table: Table | None = None) -> bool:
        """Removes a value from whichever tier has it; whether a valid one was there."""
        with self._lock:
            low = self._low(key, table)
            there = self._is_below(low)
            there = self.hot.delete(key, table) or there
            self._delete_below(low)
        return there

    def clear(self, table: Table | None = None) -> int:
        """Removes everything, or all keys of one table; how many values that were."""

        def is_of(low: Hashable, _: About) -> bool:
            return isinstance(low, _Of) and low.table is table

        with self._lock:
            count = self.hot.clear(table)
            for level in self.levels:
                if table is None:
                    count += level.clear()
                elif not level.in_bytes:
                    count += level.invalidate(None, None, is_of)
        return count

    def invalidate(
        self,
        *,
        tag: str | None = None,
        prefix: str | None = None,
        predicate: Callable[[About], bool] | None = None,
    ) -> int:
        """Removes the values that meet all the conditions given; how many that were."""

        def is_hot(entry: Entry) -> bool:
            return predicate is None or predicate(_kept(entry).about)

        def is_below(_: Hashable, about: About) -> bool:
            return predicate is None or predicate(about)

        with self._lock:
            count = self.hot.invalidate(tag=tag, prefix=prefix, predicate=is_hot)
            return count + sum([level.invalidate(tag, prefix, is_below) for level in self.levels])

    def close(self) -> None:
        """Lets everything hot sink into the tier below if that outlives the process."""
        with self._lock:
            if self.levels and self.levels[0].in_bytes:
                for entry in self.hot.entries():
                    kept = _kept(entry)
                    self.hot.delete(entry.key, entry.table)
                    self._leave_hot(entry, kept)
            for level in self.levels:
                level.close()

    def _at(self, key: Hashable, low: Hashable, kept: Kept, wanted: int) -> int | None:
        """The number of the tier where a value is to be; None if no tier takes it."""
        takes = [self.hot.max_entries > 0, *[level.takes(kept) for level in self.levels]]
        if takes[0] and self.hot.peek(key) is not None:
            return 0
        for place in range(1, wanted):
            if takes[place] and self.levels[place - 1].has(low):
                return place
        below, above = range(wanted, len(takes)), range(wanted - 1, -1, -1)
        return next((place for place in (*below, *above) if takes[place]), None)

    def _put_hot(self, key: Hashable, kept: Kept, table: Table | None) -> Entry | None:
        left_ns = remaining_ns(kept.expires_ns, self.now_ns())
        about = _BARE if kept.about is PLAIN else kept.about
        entry = self.hot.put(key, kept.held, left_ns, table=table, form=kept.form, about=about)
        terms = None if entry is None else entry.terms
        if (
            isinstance(entry, FullEntry)
            and terms is not None
            and terms.expires_ns > kept.expires_ns
        ):
            # The time that passed since we looked at the clock is not added to its life.
            late_ns = terms.expires_ns - kept.expires_ns
            stale_ns, rescue_ns = terms.stale_ns - late_ns, terms.rescue_ns - late_ns
            entry.terms = Terms(kept.expires_ns, stale_ns, rescue_ns, terms.about, terms.lead_ns)
            entry.fresh_ns = min(entry.fresh_ns, kept.expires_ns)
        return entry

    def _is_below(self, low: Hashable) -> bool:
        return any(_fits(low, level) and level.has(low) for level in self.levels)

    def _delete_below(self, low: Hashable) -> None:
        for level in self.levels:
            if _fits(low, level):
                level.delete(low)

    def _low(self, key: Hashable, table: Table | None) -> Hashable:
        """The key below the hot tier."""
        if table is not None and table is not self.main:
            return _Of(table, key)
        return digest(key) if self.in_bytes and type(key) is str else key

    def _sink_hot(self, entry: Entry) -> None:
        self._leave_hot(entry, _kept(entry))

    def _leave_hot(self, entry: Entry, kept: Kept) -> None:
        if self.now_ns() < kept.expires_ns:
            self._sink(0, self._low(entry.key, entry.table), kept)

    def _sink(self, place: int, low: Hashable, kept: Kept) -> None:
        """Stores what had to leave a tier in the next one below that takes it."""
        traffic = self.traffic[place]
        for level in self.levels[place:]:
            if _fits(low, level) and level.takes(kept):
                traffic.demoted += 1
                level.put(low, kept)
                return
        traffic.dropped += 1


def _fits(low: Hashable, level: Level) -> bool:
    """Whether a level may have this key at all."""
    return not (level.in_bytes and isinstance(low, _Of))


def _kept(entry: Entry) -> Kept:
    """What leaves with an entry of the hot tier, which has terms, see `_BARE`."""
    terms = entry.terms or Terms(entry.fresh_ns)
    about, name = terms.about, name_of(entry)
    if about.name != name:
        about = msgspec.structs.replace(about, name=name)
    return Kept(entry.form, entry.value, terms.expires_ns, about)
