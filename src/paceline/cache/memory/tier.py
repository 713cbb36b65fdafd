"""The hot tier: results in this process, under one bound and one order of eviction."""

import math
import random
from collections import deque
from collections.abc import Callable, Collection, Hashable
from functools import partial
from typing import Final, Generic, TypeVar, final
from weakref import WeakSet

import msgspec

from paceline.cache.entry import PLAIN, About, Entry, FullEntry, Table, Terms
from paceline.cache.memory.holdings import Holdings, Reason, ended, name_of
from paceline.cache.memory.invalidations import Invalidations
from paceline.cache.memory.sizes import ENTRY_BYTES, size_of
from paceline.cache.memory.turn import Turn
from paceline.cache.policies.lru import LRU
from paceline.cache.policies.policy import MakePolicy
from paceline.cache.snapshot import Form
from paceline.clock import Clock
from paceline.errors import InvalidInputError

__all__ = ["NEVER_NS", "MemoryStats", "MemoryTier", "ended", "lifetime_ns", "name_of"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

NEVER_NS: Final = 2**62
"""A lifetime of 146 years, in nanoseconds: for ever. Added to any clock it fits 63 bits."""

_TOUCHES: Final = 1024
_LEADS: Final = 12  # of which an exponential draw is larger once in 160,000
_SHARE_OF_ONE: Final = 8
_TRIES: Final = 64


def lifetime_ns(ttl_s: float) -> int:
    """A time to live in nanoseconds. 0 means do not store; infinity means for ever.

    Raises InvalidInputError for a negative number and for what is not a number.
    """
    if not isinstance(ttl_s, (int, float)) or math.isnan(ttl_s) or ttl_s < 0:
        raise InvalidInputError(
            f"a time to live of {ttl_s!r} s makes no sense",
            next_step="Use 0 for not at all, infinity for ever, or leave it out for the default.",
        )
    return min(round(min(ttl_s, NEVER_NS) * 1e9), NEVER_NS)


class MemoryStats(msgspec.Struct, frozen=True):
    """What a tier holds and has done. `removed` counts by reason, `refused` were too large."""

    entries: int
    bytes: int
    hits: int
    misses: int
    stored: int
    refused: int
    removed: dict[str, int]


@final
class MemoryTier(Generic[K, V]):
    """At most `max_entries` values (0: none) of at most `max_bytes`, each until its own expiry.

    An entry is valid while its age is less than its time to live. When there is no room, expired
    entries go first, then those that the policy names; storing under a key that is there evicts
    nobody. Values are handed out as they were given.

    Safe to use from several threads and event loops. A hit takes no lock: it looks up, compares
    the time, counts, and notes the use in a bounded list, which the next store hands to the
    policy in order. So the order of eviction is exact unless more than 1,024 hits lie between two
    stores; then it lacks the earliest. An entry that leaves gets a `fresh_ns` of 0: who still has
    it in hand sees a miss.
    """

    def __init__(
        self,
        max_entries: int,
        *,
        clock: Clock,
        max_bytes: int | None = None,
        max_entry_bytes: int | None = None,
        policy: MakePolicy = LRU,
        on_evict: Callable[[Entry], object] | None = None,
        jitter: float = 0.0,
        rng: random.Random | None = None,
    ) -> None:
        """`max_entry_bytes` defaults to an eighth of `max_bytes`; `on_evict` gets what had to
        make room, outside of any lock. `jitter` (0..1) is the share of its lifetime that an entry
        may lose at random, so that what was stored together does not expire together."""
        _check(max_entries, max_bytes, jitter)
        self.max_entries = max_entries
        self.max_bytes = max_bytes
        if max_entry_bytes is None and max_bytes is not None:
            max_entry_bytes = max_bytes // _SHARE_OF_ONE
        self.max_entry_bytes = max_entry_bytes
        self.jitter = jitter
        self.epoch = 0
        """Changes with every removal by request: what was computed before may be out of date."""
        self.misses = 0
        self.refused = 0
        self.now_ns = clock.monotonic_ns
        self.main = Table()
        self._touches: deque[Entry] = deque(maxlen=_TOUCHES)
        self.touch = self._touches.append
        self._rng = rng or random.Random(clock.wall_ns())  # noqa: S311 (it spreads load)
        self._on_evict = on_evict
        # An entry is what most of the memory beside keys and values goes into.
        self._lean = policy is LRU and max_bytes is None
        self._held = Holdings(max_entries, max_bytes, policy)
        self._invalidations = Invalidations()
        self._orphans: deque[Table] = deque()
        self._tables: dict[str, WeakSet[Table]] = {}
        self._turn = Turn()
        self._later: deque[Callable[[], object]] = deque()
        self.get: Callable[[K], Entry | None] = self._make_get()
        """The fresh entry of this key, which counts as a use; else None."""

    def _make_get(self) -> Callable[[K], Entry | None]:
        # What `get` needs is in cells of its own instead of in us: that is a quarter quicker.
        find, now_ns, touch, expire = self.main.entries.get, self.now_ns, self.touch, self.expire

        def get(key: K) -> Entry | None:
            entry = find(key)
            if entry is None:
                return None
            if now_ns() < entry.fresh_ns:
                # Nothing is called between reading the count and writing it, so no other thread
                # comes in between.
                entry.uses += 1
                touch(entry)
                return entry
            expire(entry)
            return None

        return get

    def __len__(self) -> int:
        """Entries held, expired ones that were not swept yet included."""
        return self._held.count

    @property
    def bytes(self) -> int:
        """Bytes held, by estimate; 0 unless they are bounded."""
        return self._held.weight

    @property
    def evictions(self) -> int:
        """Entries that had to make room."""
        return self._held.removed["capacity"] + self._held.removed["bytes"]

    @property
    def expirations(self) -> int:
        """Entries that were removed because their time was over."""
        return self._held.removed["expired"]

    @property
    def stored(self) -> int:
        """Entries that were stored."""
        return self._held.stored

    @property
    def removed(self) -> dict[str, int]:
        """How many entries left, by reason."""
        return dict(self._held.removed)

    def entries(self) -> list[Entry]:
        """All entries, the one that would go first, first."""
        with self._turn as mine:
            if mine:
                self._held.use(self._touches)
            return list(self._held.policy)

    def stats(self) -> MemoryStats:
        """What it holds and has done. A hit at the very moment its entry leaves may be missing."""
        return MemoryStats(
            entries=len(self),
            bytes=self.bytes,
            hits=self._held.past_hits + sum([entry.uses for entry in self.entries()]),
            misses=self.misses,
            stored=self._held.stored,
            refused=self.refused,
            removed=dict(self._held.removed),
        )

    def peek(self, key: K) -> Entry | None:
        """The fresh entry of this key, without counting as a use."""
        entry = self.main.entries.get(key)
        return entry if entry is not None and self.now_ns() < entry.fresh_ns else None

    def find(self, key: K, table: Table | None = None) -> Entry | None:
        """Whatever is kept under this key, fresh or not; `Entry.terms` says what it is good for."""
        return (self.main if table is None else table).entries.get(key)

    def left_s(self, key: K) -> float:
        """For how many more seconds what is kept under this key is valid; infinite where nothing ends."""
        entry = self.main.entries.get(key)
        ends_ns = NEVER_NS
        if entry is not None:
            ends_ns = entry.fresh_ns if entry.terms is None else entry.terms.expires_ns
        return math.inf if ends_ns >= NEVER_NS else max(0, ends_ns - self.now_ns()) / 1e9

    def put(  # noqa: C901, PLR0912 (it is every miss: one straight line instead of calls)
        self,
        key: K,
        value: V,
        ttl_ns: int,
        *,
        table: Table | None = None,
        form: Form = Form.SHARED,
        about: About = PLAIN,
        early: float = 0.0,
        since: int | None = None,
    ) -> Entry | None:
        """Stores a value for `ttl_ns` nanoseconds, in place of what was there.

        With 0 nothing is stored, and what was there is removed. `since` is the `epoch` before the
        value was computed: if its key, a tag of its or everything was removed since, it is not
        stored. With `early` above 0 the entry is `due` at random before its expiry, the earlier
        the longer it took to compute.
        """
        if table is None:
            table = self.main
        now_ns = self.now_ns()
        if self.jitter and 0 < ttl_ns < NEVER_NS:
            ttl_ns = max(1, round(ttl_ns * (1 - self.jitter * self._rng.random())))
        ends_ns = now_ns + ttl_ns if ttl_ns < NEVER_NS else 0
        if about is PLAIN and self._lean:
            entry = Entry(key, value, ends_ns or NEVER_NS)
        else:
            entry = full = FullEntry(key, value, ends_ns or NEVER_NS)
            if about is not PLAIN:
                ends_ns = _set_terms(full, about, early)
        entry.table = table
        entry.form = form
        refused = self.max_bytes is not None and not self._weigh(entry)
        if refused or ttl_ns <= 0 or not self.max_entries:
            self._drop(_listed(table.entries.get(key)), "replaced")
            return None
        turn = self._turn
        with turn.lock:
            turn.depth += 1
            try:
                if turn.depth > 1:
                    self._later.append(partial(self._put_later, entry, ends_ns, ttl_ns, since))
                    return entry
                if since is not None and since != self.epoch:
                    tags = about.tags or table.tags
                    if self.outdated(since, key, tags, table=table):
                        return None
                if self._touches:
                    self._held.use(self._touches)
                if self._orphans:
                    self._held.bury(self._orphans)
                victims = self._held.insert(entry, now_ns, ends_ns, ttl_ns, about.tags)
            finally:
                turn.depth -= 1
        if self._later:
            self._catch_up()
        if victims is not None and self._on_evict is not None:
            for victim in victims:
                self._on_evict(victim)
        return entry

    def delete(self, key: K, table: Table | None = None) -> bool:
        """Removes an entry; whether a valid one was there."""
        table = self.main if table is None else table
        now_ns = self.now_ns()
        valid = False
        with self._turn as mine:
            if not mine:
                self._later.append(partial(self.delete, key, table))
                return False
            self.epoch = self._invalidations.note(table, key)
            entry = table.entries.get(key)
            if entry is not None:
                terms = entry.terms
                valid = now_ns < (entry.fresh_ns if terms is None else terms.expires_ns)
                self._held.remove(entry, "deleted")
        self._catch_up()
        return valid

    def clear(self, table: Table | None = None) -> int:
        """Removes everything, or all keys of one table; how many entries that were."""
        with self._turn as mine:
            if not mine:
                self._later.append(partial(self.clear, table))
                return 0
            self.epoch = self._invalidations.note(table)
            entries = list(self._held.policy if table is None else table.entries.values())
            for entry in entries:
                self._held.remove(entry, "cleared")
            if table is None:
                self._held.expiries.clear()
        self._catch_up()
        return len(entries)

    def invalidate(
        self,
        *,
        tag: str | None = None,
        prefix: str | None = None,
        predicate: Callable[[Entry], bool] | None = None,
    ) -> int:
        """Removes all entries with this tag, this beginning of their name, and of which this is
        true; how many those were.

        The name is that of what was run, else of the table, else the key if it is text. A tag
        alone costs as much as there are entries with it, all else a look at every entry.
        """
        with self._turn as mine:
            if not mine:
                request = partial(self.invalidate, tag=tag, prefix=prefix, predicate=predicate)
                self._later.append(request)
                return 0
            self.epoch = self._invalidations.note(tag=tag)
            found = list(self._held.policy) if tag is None else self._tagged(tag)
        if prefix is not None:
            found = [entry for entry in found if name_of(entry).startswith(prefix)]
        if predicate is not None:
            found = [entry for entry in found if predicate(entry)]
        return self._drop(found, "deleted")

    def sweep(self, limit: int = _TRIES) -> int:
        """Removes entries that are past their time, looking at `limit` at the most; how many."""
        before = self.expirations
        with self._turn as mine:
            if mine:
                self._held.sweep(self.now_ns(), limit)
        self._catch_up()
        return self.expirations - before

    def outdated(self, since: int, key: K, tags: Collection[str] = (), *, table: Table) -> bool:
        """Whether a result under this key, computed since that `epoch`, may be out of date."""
        return since != self.epoch and self._invalidations.concern(since, table, key, tags)

    def due(self, entry: Entry) -> bool:
        """Whether an entry that is not fresh is to be computed anew; asked for each request.

        Always once it expired; before, by chance that grows towards its expiry and with the time
        it takes to compute, so that one of many requests begins in time (Vattani, Chierichetti,
        Lowenstein: Optimal probabilistic cache stampede prevention, 2015).
        """
        terms = entry.terms
        if terms is None or not entry.fresh_ns:
            return True
        lead_ns = terms.lead_ns * self._rng.expovariate(1.0) if terms.lead_ns else 0
        return self.now_ns() + lead_ns >= terms.expires_ns

    def expire(self, entry: Entry) -> None:
        """Removes an entry if it is past its time."""
        if entry.fresh_ns and ended(entry, self.now_ns()):
            self._drop([entry], "expired")

    def register(self, table: Table) -> None:
        """Makes the tags of a table known: to invalidate one is to empty it. So its entries need
        carry none."""
        with self._turn:
            for tag in table.tags:
                self._tables.setdefault(tag, WeakSet()).add(table)

    def abandon(self, table: Table) -> None:
        """Removes all keys of a table with the next store. Takes no lock: for finalizers."""
        self._orphans.append(table)

    def _tagged(self, tag: str) -> list[Entry]:
        tables = list(self._tables.get(tag, ()))
        shared = [entry for table in tables for entry in table.entries.values()]
        return list({*self._held.tags.get(tag, ()), *shared})

    def _drop(self, entries: list[Entry], reason: Reason) -> int:
        """Removes those of some entries that are still held; how many those were."""
        with self._turn as mine:
            if not mine:
                self._later.append(partial(self._drop, entries, reason))
                return 0
            held = [entry for entry in entries if entry.fresh_ns]
            for entry in held:
                self._held.remove(entry, reason)
        self._catch_up()
        return len(held)

    def _put_later(self, entry: Entry, ends_ns: int, ttl_ns: int, since: int | None) -> None:
        """Stores what was put in the middle of something else."""
        about = PLAIN if entry.terms is None else entry.terms.about
        tags = about.tags or entry.table.tags
        victims = None
        with self._turn as mine:
            if not mine:
                self._later.append(partial(self._put_later, entry, ends_ns, ttl_ns, since))
            elif since is None or not self.outdated(since, entry.key, tags, table=entry.table):
                victims = self._held.insert(entry, self.now_ns(), ends_ns, ttl_ns, about.tags)
        if self._on_evict is not None:
            for victim in victims or ():
                self._on_evict(victim)

    def _catch_up(self) -> None:
        """Does what a finalizer asked for while something else was being done."""
        while self._later:
            self._later.popleft()()

    def _weigh(self, entry: Entry) -> bool:
        """Estimates the bytes of an entry, if they matter; whether it may be kept."""
        if not isinstance(entry, FullEntry) or self.max_bytes is None:
            return True
        entry.weight = ENTRY_BYTES + size_of(entry.key) + size_of(entry.value)
        if self.max_entry_bytes is not None and entry.weight > self.max_entry_bytes:
            self.refused += 1
            return False
        return True


def _listed(entry: Entry | None) -> list[Entry]:
    return [] if entry is None else [entry]


def _set_terms(entry: FullEntry, about: About, early: float) -> int:
    """Sets the terms of an entry; when it is of no use any more, 0 for never."""
    expires_ns = entry.fresh_ns
    stale_ns = ends_ns = expires_ns
    if about.stale_ns or about.rescue_ns:
        stale_ns = min(expires_ns + about.stale_ns, NEVER_NS)
        ends_ns = min(max(stale_ns, expires_ns + about.rescue_ns), NEVER_NS)
    lead_ns = round(early * about.cost_ns) if expires_ns < NEVER_NS else 0
    entry.terms = Terms(expires_ns, stale_ns, ends_ns, about, lead_ns)
    if lead_ns:
        entry.fresh_ns = max(1, expires_ns - _LEADS * lead_ns)
    return ends_ns if ends_ns < NEVER_NS else 0


def _check(max_entries: object, max_bytes: int | None, jitter: float) -> None:
    """Raises InvalidInputError for bounds that no cache can have."""
    if not isinstance(max_entries, int) or max_entries < 0:
        raise InvalidInputError(
            f"a cache of {max_entries!r} entries makes no sense",
            next_step="Give a whole number, 0 for a cache that keeps nothing.",
        )
    if max_bytes is not None and max_bytes < 0:
        raise InvalidInputError(
            f"a cache of {max_bytes} bytes makes no sense",
            next_step="Give a number of bytes, or None for no bound.",
        )
    if not 0 <= jitter <= 1:
        raise InvalidInputError(f"a jitter of {jitter} is no share", next_step="Use 0 to 1.")
