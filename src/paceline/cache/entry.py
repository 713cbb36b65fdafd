"""What a cache keeps of one result beside its value, and the table it is found in."""

from typing import TYPE_CHECKING, Any, Final, final

import msgspec

if TYPE_CHECKING:
    from paceline.cache.snapshot import Form

__all__ = ["PLAIN", "About", "Entry", "FullEntry", "Ledger", "Table", "Terms"]


class About(msgspec.Struct, frozen=True, gc=False):
    """What a result is, for those who list, remove and weigh results. Goes with it to every tier.

    `name` is what was run, `scope` who may see it, `summary` its input in a line, without
    secrets. `cost_ns` and `cost_usd` are what computing it took: what every hit saves.
    `stale_ns` and `rescue_ns` are how long after its lifetime it may be served while it is
    computed anew, and if that fails (RFC 5861).
    """

    name: str = ""
    scope: str = ""
    summary: str = ""
    tags: tuple[str, ...] = ()
    cost_ns: int = 0
    cost_usd: float = 0.0
    stale_ns: int = 0
    rescue_ns: int = 0


class Terms(msgspec.Struct, frozen=True, gc=False):
    """When a result may still be served though it is not fresh, and what it is.

    Moments of the monotonic clock, in nanoseconds, none earlier than the one before it: until
    `expires_ns` it is valid; until `stale_ns` it may be served while it is computed anew; until
    `rescue_ns` it may be served if computing it anew fails. `lead_ns` is by how much, on average,
    computing it anew is to begin before it expires; 0 for never.
    """

    expires_ns: int
    stale_ns: int = 0
    rescue_ns: int = 0
    about: About = About()
    lead_ns: int = 0


PLAIN: Final = About()


class Entry:
    """A kept result and its place in the order of eviction.

    A class with slots and links of its own, because there is one for every result and a hit
    touches nothing else. Until `fresh_ns` a hit needs no further look. `before` and `after`
    belong to the replacement policy. What only some caches need is in `FullEntry`.
    """

    __slots__ = ("after", "before", "form", "fresh_ns", "key", "table", "uses", "value")
    form: "Form"
    table: "Table"
    before: "Entry"
    after: "Entry"

    # In one place for all entries that are not full.
    weight: int = 1
    """1, or its size in bytes, by how the cache is bounded."""
    terms: Terms | None = None
    """What it is good for after `fresh_ns`; None for nothing."""
    place: Any = None
    """The policy's own."""

    def __init__(self, key: Any, value: Any, fresh_ns: int) -> None:
        self.key = key
        self.value = value
        self.fresh_ns = fresh_ns
        self.uses = 0


@final
class FullEntry(Entry):
    """An entry of which there is more to know, or whose policy notes something on it."""

    __slots__ = ("place", "terms", "weight")

    def __init__(self, key: Any, value: Any, fresh_ns: int) -> None:
        # Not by way of `super`: most of what is stored comes by here.
        self.key = key
        self.value = value
        self.fresh_ns = fresh_ns
        self.uses = 0
        self.weight = 1
        self.terms = None
        self.place = None


@final
class Ledger:
    """What was done with the results of one function, or of one cache used by hand.

    `hits` are those of entries that are gone; entries that are there count their own. `misses`
    are requests that nothing kept answered, of which `joins` waited for a computation under way.
    `stale` answers were past their lifetime, `rescued` ones in place of an error.
    """

    __slots__ = ("computed", "computed_ns", "hits", "joins", "misses", "rescued", "stale")

    def __init__(self) -> None:
        self.hits = self.misses = self.joins = self.stale = self.rescued = 0
        self.computed = self.computed_ns = 0


@final
class Table:
    """Keys of their own within a tier: those of one function, say, whose keys are its arguments.

    `tags` are those that all its entries have; see `MemoryTier.register`.
    """

    __slots__ = ("__weakref__", "entries", "ledger", "name", "tags")

    def __init__(
        self, name: str = "", ledger: Ledger | None = None, tags: tuple[str, ...] = ()
    ) -> None:
        self.name = name
        self.tags = tags
        self.entries: dict[Any, Entry] = {}
        self.ledger = Ledger() if ledger is None else ledger
