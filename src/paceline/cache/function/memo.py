"""What stands behind a cached function: its keys, what is kept of it, and when it is computed."""

import logging
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, final

import msgspec

from paceline.cache.entry import PLAIN, About, Entry, Ledger, Table
from paceline.cache.flight import SingleFlight, ThreadFlight
from paceline.cache.function.keys import FunctionKeys
from paceline.cache.function.tables import Entries, Instances, Scopes
from paceline.cache.function.wrappers import Shortcut
from paceline.cache.memory.tier import lifetime_ns
from paceline.cache.snapshot import Form, again, thaw
from paceline.errors import CodecError

if TYPE_CHECKING:
    from paceline.cache.lru import LRUCache
    from paceline.cache.stack.cache import TieredCache

__all__ = ["AsyncMemo", "CacheInfo", "Memo", "Rules", "SyncMemo"]

_log = logging.getLogger("paceline")
_SHARED = Form.SHARED

Function = Callable[..., Any]
Place = tuple[Table, Hashable]


def _nobody() -> None:
    """The scope of what has none."""


class CacheInfo(msgspec.Struct, frozen=True):
    """What a cached function has done, since it was decorated.

    `hits` were answered by what was kept, `stale` of them past its lifetime. `misses` were not,
    `joins` of them waited for a computation under way. `rescued` were given an old result in
    place of an error. `computed` computations came to a result and took `computed_s` together;
    each hit saved one of them: `saved_s`.
    """

    hits: int
    misses: int
    joins: int
    stale: int
    rescued: int
    entries: int
    computed: int
    computed_s: float
    saved_s: float


class Rules(NamedTuple):
    """How results of a function are kept; see `paceline.cache.function.decorator.cached`."""

    ttl: float | Callable[[Any], float | None] | None
    tags: tuple[str, ...] | Callable[..., Iterable[str]]
    scope: Callable[[], object] | None
    condition: Callable[[Any], object] | None
    negative_ns: int
    stale_ns: int
    rescue_ns: int
    early: float


_Made = tuple[Any, Form | None, Any]
"""A result: the value of who computed it; and for the others its form and what is held, with a
form of None if nothing can be."""


class Memo:
    """Of one cached function: its table, its keys and its ledger."""

    def __init__(
        self, cache: "LRUCache | TieredCache", function: Function, keys: FunctionKeys, rules: Rules
    ) -> None:
        self.function = function
        self.keys = keys
        self.rules = rules
        self.ledger = Ledger()
        self.tier = cache.tier
        self._recall = cache.recall
        # What goes down to other tiers has to carry its tags; all else has them by its table.
        common = cache.recall is None and not callable(rules.tags)
        self._table_tags = rules.tags if common and not callable(rules.tags) else ()
        self.table = self._make_table()
        self.instances = Instances(self._make_table, cache.tier.abandon) if keys.is_method else None
        is_scoped = rules.scope is not None and not keys.is_method
        self.scopes = Scopes(self._make_table) if is_scoped else None
        self._hold = cache.hold
        self._default_ns = cache.default_ns
        self._ttl_ns = self._lifetime_ns(None if callable(rules.ttl) else rules.ttl)
        # Without tags and the like an entry carries nothing beside its value, and if its cost does
        # not matter all entries carry one and the same.
        self._plain = not (
            (rules.tags and not self._table_tags)
            or rules.stale_ns
            or rules.rescue_ns
            or rules.early
            or cache.weighs_cost
        )
        self._each = bool(rules.early or cache.weighs_cost or callable(rules.tags))
        self._common = self._made_about(() if callable(rules.tags) else rules.tags, 0)
        self.tags = rules.tags
        self.calm = cache.tier.epoch
        """The epoch when last no computation was under way that may be out of date."""

    def _make_table(self) -> Table:
        table = Table(self.keys.name, self.ledger, self._table_tags)
        if self._table_tags:
            self.tier.register(table)
        return table

    def place(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Place:
        """The table and key of a call. Raises UnkeyableError, TypeError for wrong arguments."""
        if self.rules.scope is None:
            key = self.keys.key(args, kwargs)
        else:
            who = self.rules.scope()
            if self.scopes is not None and (type(who) is str or type(who) is int):
                return self.scopes.table(who), self.keys.key(args, kwargs)
            key = self.keys.key(args, kwargs, who)
        if self.instances is None:
            return self.table, key
        first = args[0] if args else kwargs[self.keys.first]  # which `key` has looked for
        return self.instances.table(first), key

    def find(self, place: Place) -> Entry | None:
        """What is kept of a call, in the cache's first tier or, if there are others, below."""
        table, key = place
        entry = table.entries.get(key)
        if entry is None and self._recall is not None:
            entry = self._recall(key, table)
        return entry

    def shortcut(self, answer: Function) -> Shortcut:
        """What the wrapper needs for a hit."""
        shares = self._shares()
        kept: dict[Any, Entries] = {} if shares is None else shares.kept
        find, tier = self.table.entries.get, self.tier
        return Shortcut(find, kept, self.rules.scope or _nobody, tier.now_ns, tier.touch, answer)

    def _shares(self) -> Instances | Scopes | None:
        """What has the tables beside the main one."""
        return self.scopes if self.instances is None else self.instances

    def tables(self) -> list[Table]:
        """All tables of the function."""
        shares = self._shares()
        return [self.table, *(() if shares is None else shares.tables())]

    def invalidate(self, *args: Any, **kwargs: Any) -> bool:
        """Removes what is kept of the call with these arguments; whether something valid was."""
        table, key = self.place(args, kwargs)
        return self.tier.delete(key, table)

    def clear(self) -> int:
        """Removes everything kept of the function; how much that was."""
        return sum([self.tier.clear(table) for table in self.tables()])

    def info(self) -> CacheInfo:
        """What was done so far."""
        ledger, entries = self.ledger, [e for t in self.tables() for e in list(t.entries.values())]
        hits = ledger.hits + sum([entry.uses for entry in entries])
        mean_ns = ledger.computed_ns / ledger.computed if ledger.computed else 0
        return CacheInfo(
            hits=hits,
            misses=ledger.misses,
            joins=ledger.joins,
            stale=ledger.stale,
            rescued=ledger.rescued,
            entries=len(entries),
            computed=ledger.computed,
            computed_s=ledger.computed_ns / 1e9,
            saved_s=hits * mean_ns / 1e9,
        )

    def use(self, entry: Entry) -> Any:
        """The value of an entry, or the error it keeps; counts as a hit."""
        entry.uses += 1
        self.tier.touch(entry)
        return thaw(entry.form, entry.value)

    def use_stale(self, entry: Entry) -> Any:
        """As `use`, for an entry that may be past its lifetime."""
        if entry.terms is not None and self.tier.now_ns() >= entry.terms.expires_ns:
            self.ledger.stale += 1
        return self.use(entry)

    def serves_stale(self, entry: Entry) -> bool:
        """Whether an entry that is not fresh may be served while it is computed anew; removes it
        if it is of no use any more."""
        terms = entry.terms
        if terms is not None and entry.fresh_ns and self.tier.now_ns() < terms.stale_ns:
            return True
        self.tier.expire(entry)
        return False

    def joined(self, made: _Made) -> Any:
        """The value of one who waited for another's computation."""
        self.ledger.joins += 1
        value, form, held = made
        return value if form is None else thaw(form, held)

    def missed(self) -> None:
        """Counts a request that nothing kept answered."""
        self.ledger.misses += 1
        self.tier.misses += 1

    def _lifetime_ns(self, ttl: float | None) -> int:
        return self._default_ns if ttl is None else lifetime_ns(ttl)

    def keep(self, work: "_Work", value: Any, took_ns: int) -> _Made:
        """Keeps a result, unless its key, a tag of its or everything was removed meanwhile."""
        rules = self.rules
        self.ledger.computed += 1
        self.ledger.computed_ns += took_ns
        try:
            form, held = self._hold(value)
        except CodecError as exc:
            _log.info("a result is not cached: %s", exc)
            return value, None, None
        if held is not value and form is _SHARED:
            value = held  # frozen: all are to get the same
        if rules.condition is None or rules.condition(value):
            ttl_ns = self._lifetime_ns(rules.ttl(value)) if callable(rules.ttl) else self._ttl_ns
            table, key = work.place
            self.tier.put(
                key, held, ttl_ns,
                table=table, form=form, about=self._about(work, took_ns),
                early=rules.early, since=work.epoch,
            )  # fmt: skip
        return value, form, held

    def rescue(self, work: "_Work", error: Exception) -> _Made | None:
        """An old result in place of an error; None without one, when the error may be kept."""
        old = work.old
        terms = old.terms if old is not None and old.fresh_ns else None
        if old is not None and terms is not None and self.tier.now_ns() < terms.rescue_ns:
            _log.info("%s failed, its last result is served: %s", self.keys.name, error)
            self.ledger.rescued += 1
            return thaw(old.form, old.value), old.form, old.value
        if self.rules.negative_ns:
            table, key = work.place
            about = About(name=self.keys.name, tags=work.tags) if work.tags else PLAIN
            self.tier.put(
                key, again(error), self.rules.negative_ns,
                table=table, form=Form.RAISED, about=about, since=work.epoch,
            )  # fmt: skip
        return None

    def _about(self, work: "_Work", took_ns: int) -> About:
        if self._plain:
            return PLAIN
        return self._made_about(work.tags, took_ns) if self._each else self._common

    def _made_about(self, tags: tuple[str, ...], took_ns: int) -> About:
        rules = self.rules
        return About(
            name=self.keys.name,
            tags=tags,
            cost_ns=took_ns,
            stale_ns=rules.stale_ns,
            rescue_ns=rules.rescue_ns,
        )


class _Work:
    """One computation: of what, and since when."""

    __slots__ = ("args", "epoch", "kwargs", "memo", "old", "place", "tags")

    def __init__(
        self,
        memo: Memo,
        place: Place,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        old: Entry | None,
    ) -> None:
        self.memo = memo
        self.place = place
        self.args = args
        self.kwargs = kwargs
        self.old = old
        tags = memo.tags
        self.tags = tuple(tags(*args, **kwargs)) if callable(tags) else tags
        self.epoch = memo.tier.epoch

    def is_outdated(self) -> bool:
        """Whether what is computed is out of date already: nobody may join it any more."""
        table, key = self.place
        return self.memo.tier.outdated(self.epoch, key, self.tags, table=table)


@final
class _SyncWork(_Work):
    __slots__ = ()

    def __call__(self) -> _Made:
        memo = self.memo
        table, key = self.place
        found = table.entries.get(key)
        now_ns = memo.tier.now_ns
        if found is not None and found is not self.old and now_ns() < found.fresh_ns:
            # Another thread has come to its end since we looked.
            return thaw(found.form, found.value), found.form, found.value
        self.epoch = memo.tier.epoch
        start_ns = now_ns()
        try:
            value = memo.function(*self.args, **self.kwargs)
        except Exception as exc:
            made = memo.rescue(self, exc)
            if made is None:
                raise
            return made
        return memo.keep(self, value, now_ns() - start_ns)


@final
class _AsyncWork(_Work):
    __slots__ = ()

    async def __call__(self) -> _Made:
        memo = self.memo
        now_ns = memo.tier.now_ns
        self.epoch = memo.tier.epoch
        start_ns = now_ns()
        try:
            value = await memo.function(*self.args, **self.kwargs)
        except Exception as exc:
            made = memo.rescue(self, exc)
            if made is None:
                raise
            return made
        return memo.keep(self, value, now_ns() - start_ns)


@final
class SyncMemo(Memo):
    """Of a plain function, for any number of threads."""

    def __init__(
        self, cache: "LRUCache | TieredCache", function: Function, keys: FunctionKeys, rules: Rules
    ) -> None:
        super().__init__(cache, function, keys, rules)
        self._flights = ThreadFlight[Place, _Made]()

    def answer(self, *args: Any, **kwargs: Any) -> Any:
        """The result of a call: kept, of a computation under way, or computed.

        A result that may be served stale is computed anew by one caller, who waits for it, while
        the others get the stale one.
        """
        place = self.place(args, kwargs)
        flights, entry = self._flights, self.find(place)
        if entry is not None:
            if self.tier.now_ns() < entry.fresh_ns or not self.tier.due(entry):
                return self.use(entry)
            if self.serves_stale(entry) and flights.joinable(place) is not None:
                return self.use_stale(entry)
        self.missed()
        if self.calm != self.tier.epoch:
            self._leave_outdated(place)
        made, joined = flights.run(place, _SyncWork(self, place, args, kwargs, entry))
        return self.joined(made) if joined else made[0]

    def _leave_outdated(self, place: Place) -> None:
        epoch, flights = self.tier.epoch, self._flights
        if not flights:
            self.calm = epoch
        under_way = flights.joinable(place)
        if isinstance(under_way, _SyncWork) and under_way.is_outdated():
            flights.forget(place, under_way)


@final
class AsyncMemo(Memo):
    """Of a coroutine function, for any number of event loops."""

    def __init__(
        self, cache: "LRUCache | TieredCache", function: Function, keys: FunctionKeys, rules: Rules
    ) -> None:
        super().__init__(cache, function, keys, rules)
        self._flights = SingleFlight[Place, _Made]()

    async def answer(self, *args: Any, **kwargs: Any) -> Any:
        """The result of a call: kept, of a computation under way, or computed.

        A result that may be served stale is, while one task computes it anew.
        """
        place = self.place(args, kwargs)
        flights, entry = self._flights, self.find(place)
        if entry is not None:
            if self.tier.now_ns() < entry.fresh_ns or not self.tier.due(entry):
                return self.use(entry)
            if self.serves_stale(entry):
                flights.start(place, _AsyncWork(self, place, args, kwargs, entry))
                return self.use_stale(entry)
        self.missed()
        if self.calm != self.tier.epoch:
            self._leave_outdated(place)
        made, joined = await flights.run(place, _AsyncWork(self, place, args, kwargs, entry))
        return self.joined(made) if joined else made[0]

    def _leave_outdated(self, place: Place) -> None:
        epoch, flights = self.tier.epoch, self._flights
        if not flights:
            self.calm = epoch
        under_way = flights.joinable(place)
        if isinstance(under_way, _AsyncWork) and under_way.is_outdated():
            flights.forget(place)
