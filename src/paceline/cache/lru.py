"""`LRUCache`: a cache to use by itself, and to put functions in front of (`cached`)."""

from collections.abc import Callable, Hashable
from typing import Any, Final, Literal, Protocol, final

import msgspec

from paceline.cache.entry import Entry, Table
from paceline.cache.memory.tier import NEVER_NS, MemoryTier, lifetime_ns
from paceline.cache.policies import POLICIES
from paceline.cache.policies.policy import MakePolicy
from paceline.cache.snapshot import Form, freeze, hold, hold_copy, thaw
from paceline.clock import Clock, SystemClock
from paceline.errors import InvalidInputError

__all__ = ["LRUCache", "LRUStats", "Values", "policy_of"]

Values = Literal["safe", "share", "freeze", "copy"]
"""What is handed out: a copy of what can be changed, the very object, an unchangeable like of
it, or a deep copy in any case."""

_HOLD: Final[dict[str, Callable[[object], tuple[Form, Any]]]] = {
    "safe": hold,
    "share": lambda value: (Form.SHARED, value),
    "freeze": freeze,
    "copy": hold_copy,
}

_BLIND_TO_COST: Final = ("lru", "s3fifo", "lirs", "w-tinylfu")


def policy_of(policy: str | MakePolicy) -> MakePolicy:
    """What makes the policy of this name. Raises InvalidInputError for a name there is not."""
    if not isinstance(policy, str):
        return policy
    make = POLICIES.get(policy)
    if make is None:
        raise InvalidInputError(
            f"there is no policy {policy!r}", next_step=f"Use one of {', '.join(POLICIES)}."
        )
    return make


class LRUStats(msgspec.Struct, frozen=True):
    """What a cache has done.

    `expirations` are removals of entries past their time, `removed` counts by every reason why
    one left, `refused` were too large to keep. `bytes` is an estimate, 0 without a bound.
    """

    size: int
    max_size: int
    hits: int
    misses: int
    evictions: int
    expirations: int
    bytes: int = 0
    stored: int = 0
    refused: int = 0
    removed: dict[str, int] = msgspec.field(default_factory=dict[str, int])

    @property
    def total_requests(self) -> int:
        """Look-ups."""
        return self.hits + self.misses

    @property
    def hit_rate(self) -> float:
        """Share of look-ups that were answered, 0..1; 0 before the first."""
        return self.hits / self.total_requests if self.hits else 0.0


class _Get(Protocol):
    def __call__(self, key: Hashable, default: Any = None) -> Any: ...


@final
class LRUCache:
    """Keeps the `max_size` most recently used values in memory, each until its own expiry.

    `default_ttl` (seconds) is the lifetime of entries put without one; None is for ever. With a
    `max_size` of 0 nothing is kept. None, 0, "" and [] are values like any other. What is
    handed out is a copy where the value can be changed. Safe to use from several threads.

    `max_bytes` bounds what is kept by its estimated size as well; one entry may take an eighth of
    it. `policy` says what goes first when there is no room: `"lru"`, another of
    `paceline.cache.policies` by name, `"auto"` to let the cache find out, or what makes one.
    `values` is `"safe"`, `"share"` (the very object: do not change it), `"freeze"` (lists become
    tuples, dicts read-only) or `"copy"`. With a `jitter` of 0.1 every entry loses up to a tenth
    of its lifetime at random. `negative_ttl` (seconds) keeps exceptions of cached functions.

    Keys are compared as those of a dictionary are: 1, 1.0 and True are one key.
    """

    def __init__(
        self,
        max_size: int = 1000,
        default_ttl: float | None = None,
        *,
        clock: Clock | None = None,
        max_bytes: int | None = None,
        policy: str | MakePolicy = "lru",
        values: Values = "safe",
        jitter: float = 0.0,
        negative_ttl: float | None = None,
    ) -> None:
        if values not in _HOLD:
            raise InvalidInputError(
                f"values cannot be kept in the way {values!r}",
                next_step=f"Use one of {', '.join(_HOLD)}.",
            )
        self.max_size = max_size
        self.default_ttl = default_ttl
        self.negative_ttl = negative_ttl
        self.default_ns = NEVER_NS if default_ttl is None else lifetime_ns(default_ttl)
        self.recall: Callable[[Hashable, Table], Entry | None] | None = None
        """What finds results of functions below the first tier: there is none."""
        self.hold = _HOLD[values]
        """What keeps a value: its form, and what is held."""
        self.weighs_cost = policy not in _BLIND_TO_COST
        """Whether the policy wants to know what computing a result took."""
        self.tier = MemoryTier[Hashable, Any](
            max_size,
            clock=clock or SystemClock(),
            max_bytes=max_bytes,
            policy=policy_of(policy),
            jitter=jitter,
        )
        """What holds the entries, of cached functions too."""
        self.get: _Get = _make_get(self.tier)
        """The value under a key, or a default."""
        self._past = self.tier.stats()

    def __repr__(self) -> str:
        return f"LRUCache({len(self)}/{self.max_size} entries)"

    def __len__(self) -> int:
        return len(self.tier)

    def __contains__(self, key: Hashable) -> bool:
        """Whether there is a valid entry; counts neither as a use nor as a look-up."""
        return self.tier.peek(key) is not None

    def put(self, key: Hashable, value: object, ttl: float | None = None) -> None:
        """Stores a value for `ttl` seconds; None is the default, 0 not at all.

        Raises InvalidInputError for a negative `ttl`, CodecError for a value that can be
        neither encoded nor copied.
        """
        ttl_ns = self.default_ns if ttl is None else lifetime_ns(ttl)
        form, held = self.hold(value)
        self.tier.put(key, held, ttl_ns, form=form)

    def delete(self, key: Hashable) -> bool:
        """Removes an entry; whether a valid one was there."""
        return self.tier.delete(key)

    def clear(self) -> int:
        """Removes all entries, of cached functions too; how many that were. Figures stay, see
        `reset_stats`."""
        return self.tier.clear()

    def invalidate(
        self,
        *,
        tag: str | None = None,
        prefix: str | None = None,
        predicate: Callable[[Entry], bool] | None = None,
    ) -> int:
        """Removes the entries with a tag, with a beginning of their name (the `module.function`
        of what was cached, or a key that is text), or of which something is true; of several
        conditions, all must hold. Returns how many those were.
        """
        if tag is None and prefix is None and predicate is None:
            raise InvalidInputError(
                "invalidate was told nothing to look for", next_step="Use clear for everything."
            )
        return self.tier.invalidate(tag=tag, prefix=prefix, predicate=predicate)

    def stats(self) -> LRUStats:
        """What this cache has done since it was made or `reset_stats`."""
        now, past = self.tier.stats(), self._past
        removed = {reason: count - past.removed[reason] for reason, count in now.removed.items()}
        return LRUStats(
            size=now.entries,
            max_size=self.max_size,
            hits=now.hits - past.hits,
            misses=now.misses - past.misses,
            evictions=removed["capacity"] + removed["bytes"],
            expirations=removed["expired"],
            bytes=now.bytes,
            stored=now.stored - past.stored,
            refused=now.refused - past.refused,
            removed=removed,
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
        self._past = self.tier.stats()


def _make_get(tier: MemoryTier[Hashable, Any]) -> _Get:
    # What it needs is in cells of its own instead of in a cache: that is a quarter quicker.
    find, now_ns, touch, shared = tier.main.entries.get, tier.now_ns, tier.touch, Form.SHARED

    def get(key: Hashable, default: Any = None) -> Any:
        entry = find(key)
        if entry is not None:
            if now_ns() < entry.fresh_ns:
                entry.uses += 1
                touch(entry)
                return entry.value if entry.form is shared else thaw(entry.form, entry.value)
            tier.expire(entry)
        tier.misses += 1
        return default

    return get
