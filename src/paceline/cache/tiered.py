"""Results of calls in tiers: memory, then the file, then what machines share.

A result has one moment of expiry, which moving between tiers does not change: hits promote with
the lifetime that is left, and what memory has no room for goes down with it.
"""

import contextlib
import functools
import logging
import random
from collections.abc import Callable
from typing import Any, Final, NamedTuple, final

import msgspec

from paceline.cache.claims import Claims
from paceline.cache.disk.leases import FileLeases
from paceline.cache.disk.tier import DiskTier
from paceline.cache.entry import PLAIN, About, Entry
from paceline.cache.memory.tier import NEVER_NS, MemoryTier, lifetime_ns
from paceline.cache.sending import Sending
from paceline.cache.shared import Found, SharedTier
from paceline.cache.snapshot import Form, Snapshot, thaw
from paceline.cache.statistics import Totals
from paceline.call import Scope, Source
from paceline.clock import Clock
from paceline.codec import decode
from paceline.errors import CodecError

__all__ = ["Freshness", "Hit", "Kept", "ResultCache", "scope_text"]

_log = logging.getLogger("paceline")
_HOT: Final = Source.HOT  # asking an enum for a member takes longer than looking a result up
_SUMMARY: Final = 120
_LONG: Final = 4_000  # cut before it is read, so that no secret is cut in two where it shows
_NEWER_NS: Final = 100_000_000
"""A result that ends this much later is another: tiers tell the end of one to less than that."""
_LONGEST_GRACE_NS: Final = NEVER_NS // 4
"""36 years, so that it can be taken off again from the sum of it and a lifetime."""


class Hit(msgspec.Struct, frozen=True, gc=False):
    """A result that was found, the caller's own, and the tier it was found in.

    `aging`: it is served, but is to be computed anew. `cost_ns` and `cost_usd` are what
    computing it took.
    """

    value: Any
    source: Source
    cost_ns: int = 0
    cost_usd: float = 0.0
    aging: bool = False


class Kept(NamedTuple):
    """A result that was found, and the form in which others get it too."""

    hit: Hit
    snapshot: Snapshot


class _Wanted(NamedTuple):
    """What is looked for in lower tiers: a fresh result for a request; or, with `newer_ns`, one
    that is fresh beyond this moment, to take the place of one that is still served."""

    key: bytes
    result_type: Any
    scope: Scope | None
    newer_ns: int = 0


class Freshness(msgspec.Struct, frozen=True, kw_only=True):
    """How long results are valid, and when they are computed anew.

    `default_ttl_s` holds where a result comes without a lifetime. `jitter` is the share by which
    lifetimes are shortened at random; `early` the beta of XFetch (0: never early). An expired
    result is served for `stale_s` seconds while it is computed anew, for `stale_if_error_s` if
    that fails. Another process that computes a result is waited for `lease_wait_s` seconds.
    """

    default_ttl_s: float = 300.0
    jitter: float = 0.0
    early: float = 0.0
    stale_s: float = 0.0
    stale_if_error_s: float = 0.0
    lease_wait_s: float = 30.0


@final
class ResultCache:
    """The results of calls, by key. Every value handed out is the caller's own.

    `redact` takes the secrets out of what is shown of a result. Looking up in memory and the file
    happens where it is asked for; `fetch` and what follows a `put` use the shared tier, on the
    event loop.
    """

    def __init__(
        self,
        memory: MemoryTier[bytes, Snapshot],
        disk: DiskTier | None,
        shared: SharedTier | None = None,
        leases: FileLeases | None = None,
        *,
        clock: Clock,
        freshness: Freshness | None = None,
        redact: Callable[[str], str] = str,
        rng: random.Random | None = None,
    ) -> None:
        self.totals = Totals()
        self._memory = memory
        self._disk = disk
        self._shared = shared
        self._freshness = freshness or Freshness()
        self._claims = Claims[Kept](
            disk, leases, shared, patience_s=self._freshness.lease_wait_s, clock=clock
        )
        self._clock = clock
        self._default_ns = lifetime_ns(self._freshness.default_ttl_s)
        self._rng = random.Random(clock.wall_ns()) if rng is None else rng  # noqa: S311 (spreads expiries; guards nothing)
        self._redact = redact
        self._sending = Sending()
        self.foreign = 0
        """Values that were stored for others than their key says, and so were not used."""

    @property
    def epoch(self) -> int:
        """Changes with every removal by request: see `put`."""
        return self._memory.epoch

    # -- reading ------------------------------------------------------------------------------

    def get(self, key: bytes, result_type: Any = None, scope: Scope | None = None) -> Hit | None:
        """The result under this key that may be served, or None.

        `result_type` is what the value is read back as; see `paceline.codec`. A lower tier's
        value that was not stored for this `scope` is refused: the key says so already, and a
        leak is worth a second look.
        """
        try:
            entry = self._memory.get(key)
            if entry is not None:
                terms, snapshot = entry.terms, entry.value
                about = PLAIN if terms is None else terms.about
                value = thaw(snapshot.form, snapshot.held, result_type)
                self.totals.hot_hits += 1
                return self._counted(Hit(value, _HOT, about.cost_ns, about.cost_usd))
            hit = self._get_aging(key, result_type) or self._get_warm(key, result_type, scope)
        except CodecError as exc:
            _log.info("a stored result is dropped: %s", exc)
            self.delete(key)
            hit = None
        if hit is None:
            self.totals.misses += 1
        return hit

    def rescue(self, key: bytes, result_type: Any = None, scope: Scope | None = None) -> Hit | None:
        """The expired result that may be served because computing it anew failed, or None."""
        try:
            found = self._rescued(key, result_type, scope)
        except CodecError as exc:
            _log.info("a stored result cannot be served in place of an error: %s", exc)
            return None
        if found is None:
            return None
        value, about, hot = found
        self.totals.hot_hits += hot
        self.totals.warm_hits += not hot
        self.totals.stale += 1
        self.totals.misses -= 1  # as which it was counted before it was computed
        return self._counted(_hit(value, Source.STALE, about))

    def _rescued(
        self, key: bytes, result_type: Any, scope: Scope | None
    ) -> tuple[Any, About, bool] | None:
        """The value, what it is, and whether it was in memory."""
        entry = self._memory.find(key)
        if entry is not None and entry.terms is not None:
            if self._clock.monotonic_ns() >= entry.terms.rescue_ns:
                return None
            return entry.value.thaw(result_type), entry.terms.about, True
        found = self._look_warm(key, scope)
        if found is None or _fresh_ns(found) + found.about.rescue_ns <= 0:
            return None
        return decode(found.value, result_type), found.about, False

    def left_s(self, key: bytes) -> float:
        """For how many more seconds the result in memory is valid; infinite where nothing ends."""
        return self._memory.left_s(key)

    async def fetch(
        self, key: bytes, result_type: Any = None, scope: Scope | None = None
    ) -> Kept | None:
        """The result from the shared tier, kept here from now on, unless it was removed while it
        was asked for; None if it has none."""
        return await self._fetch(_Wanted(key, result_type, scope))

    # -- storing ------------------------------------------------------------------------------

    def put(
        self,
        key: bytes,
        value: object,
        ttl_s: float | None = None,
        result_type: Any = None,
        about: About = PLAIN,
        *,
        since: int | None = None,
    ) -> Snapshot | None:
        """Stores a result for `ttl_s` seconds (None: the default; 0: not at all).

        Returns what was stored; None if nothing was. `since` is the `epoch` before the result was
        computed: what was removed since is not brought back. A value that has no encoding is kept in
        memory only, and one that cannot be copied either is not kept. Raises InvalidInputError
        for a negative lifetime, and nothing else, whatever the value's own code does.
        """
        ttl_ns = self._default_ns if ttl_s is None else lifetime_ns(ttl_s)
        below = self._disk is not None or self._shared is not None
        if not ttl_ns or not (self._memory.max_entries or below):
            self.delete(key)
            return None
        if since is not None and self._is_outdated(since, key, about):
            return None
        try:
            snapshot = Snapshot.take(value, result_type)
        except CodecError as exc:
            _log.info("a result is not stored: %s", exc)
            self.delete(key)
            return None
        if self._freshness.jitter and ttl_ns < NEVER_NS:
            ttl_ns = max(1, round(ttl_ns * (1 - self._freshness.jitter * self._rng.random())))
        self._keep(key, snapshot, ttl_ns, about)
        self._put_below(key, snapshot, ttl_ns, about, result_type)
        self.totals.stored += 1
        return snapshot

    def about(
        self, about: About, stale_s: float | None = None, stale_if_error_s: float | None = None
    ) -> About:
        """The same without secrets, and with how long it is kept after its lifetime: so many
        seconds, None for the default."""
        fresh = self._freshness
        return msgspec.structs.replace(
            about,
            summary=self._redact(about.summary[:_LONG])[:_SUMMARY],
            stale_ns=_grace(fresh.stale_s if stale_s is None else stale_s),
            rescue_ns=_grace(
                fresh.stale_if_error_s if stale_if_error_s is None else stale_if_error_s
            ),
        )

    def ttl_s(self, ttl_s: float | None) -> float:
        """A lifetime in seconds, the default for None."""
        return self._freshness.default_ttl_s if ttl_s is None else ttl_s

    def delete(self, key: bytes) -> None:
        """Removes the result under this key from all tiers."""
        self._memory.delete(key)
        self._delete_below(key)

    def clear(self) -> None:
        """Removes all results from all tiers."""
        self._memory.clear()
        if self._disk is not None:
            self._disk.clear()
        if self._shared is not None:
            self._sending.start(self._shared.clear())

    def dropped_elsewhere(self, key: bytes | None) -> None:
        """Another machine replaced or removed this result (None: perhaps any of them)."""
        if key is None:
            self._memory.clear()
            return
        self._memory.delete(key)
        if self._disk is not None and (found := self._disk.get(key)) is not None:
            self._sending.start(self._follow(key, found.value))

    # -- one computation for all ----------------------------------------------------------------

    def claim(
        self, key: bytes, result_type: Any = None, scope: Scope | None = None
    ) -> contextlib.AbstractAsyncContextManager[Kept | None]:
        """Holds the right to compute this result, alone among all processes and machines.

        Where another computes it, waits for that one's result and gives it; when there is still
        none after `lease_wait_s` seconds, nothing is held. What is put before the end can be
        found before others may compute.
        """
        wanted = _Wanted(key, result_type, scope)
        look = functools.partial(self._look_below, wanted)
        return self._claims.hold(key, look, functools.partial(self._fetch, wanted))

    def renewal(
        self, key: bytes, result_type: Any = None, scope: Scope | None = None
    ) -> contextlib.AbstractAsyncContextManager[bool]:
        """As `claim`, for a result that is still served: whether to compute it anew. Not while
        another does, who is not waited for; nor when one has, whose result is kept here then."""
        entry = self._memory.find(key)
        ends_ns = 0 if entry is None or entry.terms is None else entry.terms.expires_ns
        wanted = _Wanted(key, result_type, scope, ends_ns + _NEWER_NS)
        look = functools.partial(self._look_below, wanted)
        return self._claims.take(key, look, functools.partial(self._fetch, wanted))

    async def settle(self) -> None:
        """Waits until what was sent to the shared tier has arrived or was given up."""
        await self._sending.settle()

    # -- tiers ----------------------------------------------------------------------------------

    def _get_aging(self, key: bytes, result_type: Any) -> Hit | None:
        """From memory, past the moment at which it is best computed anew."""
        entry = self._memory.find(key)
        if entry is None or entry.terms is None:
            return None
        now_ns, terms = self._clock.monotonic_ns(), entry.terms
        if now_ns >= terms.stale_ns:
            return None
        if now_ns >= terms.expires_ns and self._is_newer_below(key):
            return None
        value = entry.value.thaw(result_type)
        self.totals.hot_hits += 1
        source = Source.HOT if now_ns < terms.expires_ns else Source.STALE
        self.totals.stale += source is Source.STALE
        return self._counted(_hit(value, source, terms.about, aging=self._memory.due(entry)))

    def _is_newer_below(self, key: bytes) -> bool:
        """Whether another process has computed a result anew."""
        found = self._disk.get(key) if self._disk is not None else None
        return found is not None and _fresh_ns(found) > 0

    def _get_warm(self, key: bytes, result_type: Any, scope: Scope | None) -> Hit | None:
        found = self._look_warm(key, scope)
        if found is None:
            return None
        about, fresh_ns = found.about, _fresh_ns(found)
        if fresh_ns <= 0 and fresh_ns + about.stale_ns <= 0:
            return None
        value = decode(found.value, result_type)
        self.totals.warm_hits += 1
        if fresh_ns <= 0:
            self.totals.stale += 1
            return self._counted(_hit(value, Source.STALE, about, aging=True))
        self._keep(key, Snapshot.of_payload(found.value, value), fresh_ns, about)
        return self._counted(_hit(value, Source.WARM, about))

    def _look_below(self, wanted: _Wanted) -> Kept | None:
        """The fresh result that another process may have stored meanwhile."""
        found = self._look_warm(wanted.key, wanted.scope)
        return None if found is None else self._taken(wanted, found, Source.WARM, self.epoch)

    async def _fetch(self, wanted: _Wanted) -> Kept | None:
        since = self.epoch
        found = await self._shared.get(wanted.key) if self._shared is not None else None
        if found is None or self._is_foreign(found.about, wanted.scope):
            return None
        return self._taken(wanted, found, Source.COLD, since)

    def _taken(self, wanted: _Wanted, found: Found, source: Source, since: int) -> Kept | None:
        """What was found below, if it is good enough; kept in the tiers above, unless it was
        removed since."""
        if _fresh_ns(found) <= max(0, wanted.newer_ns - self._clock.monotonic_ns()):
            return None
        kept = _read(found, source, wanted.result_type)
        if kept is None:
            return None
        if not wanted.newer_ns:  # for a request, which was counted as a miss
            self.totals.warm_hits += source is Source.WARM
            self.totals.cold_hits += source is Source.COLD
            self.totals.misses -= 1
            self._counted(kept.hit)
        if self._is_outdated(since, wanted.key, found.about):
            return None if wanted.newer_ns else kept
        self._keep(wanted.key, kept.snapshot, _fresh_ns(found), found.about)
        if self._disk is not None and source is Source.COLD:
            self._disk.put(wanted.key, found.value, found.remaining_ns, found.about)
        return kept

    def _look_warm(self, key: bytes, scope: Scope | None) -> Found | None:
        found = self._disk.get(key) if self._disk is not None else None
        return None if found is None or self._is_foreign(found.about, scope) else found

    def _is_foreign(self, about: About, scope: Scope | None) -> bool:
        if scope is None or not about.scope or about.scope == scope_text(scope):
            return False
        self.foreign += 1
        _log.error("a result of %s was stored for another scope than its key's", about.name)
        return True

    def _is_outdated(self, since: int, key: bytes, about: About) -> bool:
        return self._memory.outdated(since, key, about.tags, table=self._memory.main)

    async def _follow(self, key: bytes, value: bytes) -> None:
        """Removes from the file what another machine replaced or removed."""
        found = await self._shared.get(key) if self._shared is not None else None
        if self._disk is not None and (found is None or found.value != value):
            self._disk.delete(key)

    def _keep(self, key: bytes, snapshot: Snapshot, ttl_ns: int, about: About) -> None:
        """Into memory, and what it is."""
        self._memory.put(key, snapshot, ttl_ns, about=about, early=self._freshness.early)

    def _put_below(
        self, key: bytes, snapshot: Snapshot, ttl_ns: int, about: About, result_type: Any
    ) -> None:
        if self._disk is None and self._shared is None:
            return
        payload = snapshot.payload(result_type)
        if payload is None:
            kind = type(snapshot.held).__qualname__
            _log.info("a %s is kept in memory only: it has no encoding", kind)
            self._delete_below(key)
            return
        kept_ns = min(ttl_ns + _grace_ns(about), NEVER_NS)
        if self._disk is not None:
            self._disk.put(key, payload, kept_ns, about)
        if self._shared is not None:
            self._sending.start(self._shared.put(key, payload, kept_ns, about))

    def _delete_below(self, key: bytes) -> None:
        if self._disk is not None:
            self._disk.delete(key)
        if self._shared is not None:
            self._sending.start(self._shared.delete(key))

    def demote(self, entry: Entry) -> None:
        """What memory has no room for goes down with the lifetime it has left, unless it is there
        already. Only what is held as its bytes: those of others depend on the declared type."""
        snapshot, terms = entry.value, entry.terms
        if self._disk is None or terms is None or snapshot.form is not Form.ENCODED:
            return
        left_ns = terms.rescue_ns - self._clock.monotonic_ns()
        if left_ns > 0:
            self._disk.put(entry.key, snapshot.held, left_ns, terms.about)

    def _counted(self, hit: Hit) -> Hit:
        totals = self.totals
        totals.saved_ns += hit.cost_ns
        totals.saved_usd += hit.cost_usd
        return hit


def _hit(value: object, source: Source, about: About, *, aging: bool = False) -> Hit:
    return Hit(value, source, about.cost_ns, about.cost_usd, aging)


def scope_text(scope: Scope) -> str:
    """Who may see a result, to be shown and compared. Not injective: keys are."""
    parts = (scope.tenant, scope.user, scope.session)
    return "/".join([scope.level.value, *[part for part in parts if part is not None]])


def _read(found: Found, source: Source, result_type: Any) -> Kept | None:
    try:
        value = decode(found.value, result_type)  # the caller's own, which stays its own
    except CodecError as exc:
        _log.info("a stored result is not used: %s", exc)
        return None
    return Kept(_hit(value, source, found.about), Snapshot.of_payload(found.value, value))


def _grace(seconds: float) -> int:
    return min(lifetime_ns(seconds), _LONGEST_GRACE_NS)


def _fresh_ns(found: Found) -> int:
    """What is left of its lifetime; less than 0 is how long that has been over."""
    return found.remaining_ns - _grace_ns(found.about)


def _grace_ns(about: About) -> int:
    """How long a result is kept after its lifetime."""
    return max(about.stale_ns, about.rescue_ns)
