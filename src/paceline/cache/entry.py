"""What a cache keeps of one result beside its value."""

from typing import TYPE_CHECKING, Any, Final, final

import msgspec

if TYPE_CHECKING:
    from paceline.cache.memory import Table
    from paceline.cache.snapshot import Form

__all__ = ["PLAIN", "About", "Entry", "Terms"]


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
    `rescue_ns` it may be served if computing it anew fails.
    """

    expires_ns: int
    stale_ns: int = 0
    rescue_ns: int = 0
    about: About = About()


PLAIN: Final = About()


@final
class Entry:
    """A kept result and its place in the order of eviction.

    A class with slots and links of its own, because there is one for every result and a hit
    touches nothing else. Until `fresh_ns` a hit needs no further look; `terms` None says that
    nothing comes after that moment. `weight` is 1 or its size in bytes, by how the cache is
    bounded. `before`, `after` and `place` belong to the replacement policy.
    """

    __slots__ = (
        "after",
        "before",
        "form",
        "fresh_ns",
        "key",
        "place",
        "table",
        "terms",
        "uses",
        "value",
        "weight",
    )
    form: "Form"
    table: "Table"
    before: "Entry"
    after: "Entry"
    place: Any

    def __init__(self, key: Any, value: Any, fresh_ns: int) -> None:
        self.key = key
        self.value = value
        self.fresh_ns = fresh_ns
        self.uses = 0
        self.weight = 1
        self.terms: Terms | None = None
