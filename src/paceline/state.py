"""What a runtime keeps: results, generations of tags, history; opened, tidied and closed together.

Each part can fail to open, or later, without the others: it costs what it would have given, never
a call, and somebody is told why.
"""

import asyncio
import contextlib
import functools
import itertools
import random
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, final

from paceline.cache.disk.leases import FileLeases
from paceline.cache.disk.reader import DiskReader
from paceline.cache.disk.tier import DiskTier
from paceline.cache.entry import Entry
from paceline.cache.generations import Generations
from paceline.cache.memory.tier import MemoryTier
from paceline.cache.policies import POLICIES
from paceline.cache.snapshot import Snapshot
from paceline.cache.statistics import Windows
from paceline.cache.tiered import Freshness, ResultCache
from paceline.cache.warm_start import warm_start
from paceline.call import Call, Outcome
from paceline.clock import Clock
from paceline.config import shown_address
from paceline.errors import ConfigError, PacelineError, StorageError
from paceline.history.sqlite import SqliteHistory
from paceline.home import Home
from paceline.redaction import Redactor
from paceline.settings import CacheSettings, Settings

if TYPE_CHECKING:
    from paceline.cache.redis.address import RedisAddress
    from paceline.cache.redis.tier import RedisTier

__all__ = ["State", "shared_address"]

_TIDY_S: Final = 5.0
_TURNS_OF_PRUNING: Final = 720
_REMOVED: Final = "cache:removed"
"""The tag that is written when single results are removed."""


@final
class State:
    """The state of one runtime, in the files of a home or in memory only."""

    def __init__(
        self,
        settings: Settings,
        home: Home | None,
        *,
        clock: Clock,
        redactor: Redactor,
        rng: random.Random,
        notice: Callable[[str, PacelineError], None],
    ) -> None:
        """Opens all parts; `home` None keeps everything in memory. `notice(what, error)` is told
        of what cannot be used, from any thread. Raises ConfigError for a shared tier whose
        address is none."""
        if settings.cache.enabled and settings.cache.shared_url:
            shared_address(settings.cache)  # before anything is open
        self._settings = settings
        self._notice = notice
        self._rng = rng
        self._clock = clock
        self._stop = asyncio.Event()
        self._hourly: list[Callable[[], object]] = []
        self.generations = Generations(
            home.generations if home is not None else None,
            on_trouble=lambda exc: notice("invalidation across processes", exc),
        )
        self.windows = Windows()
        self._last_removal = self.generations.read((_REMOVED,))
        self.disk = self._open_disk(home, clock)
        """None without a warm tier."""
        self._leases = self._open_leases(home)
        self._shared = self._make_shared(clock)
        self.memory = self._open_memory(clock)
        self.cache = self._open_cache(clock, redactor)
        self.history = self._open_history(home, clock, redactor)
        """None where calls are not recorded."""

    @property
    def observers(self) -> list[Callable[[Call, Outcome], None]]:
        """Who is to be told of every call."""
        return [] if self.history is None else [self.history.observe]

    async def __aenter__(self) -> Self:
        if self._shared is not None:
            try:
                await self._shared.__aenter__()
            except BaseException:  # nobody is going to close what is open already
                self._close()
                raise
        self._working = asyncio.gather(self._tidy(), self._load())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        try:
            await self._working
            await self.cache.settle()
        finally:
            if self._shared is not None:
                await self._shared.__aexit__(kind, error, trace)
            await asyncio.to_thread(self._close)

    def _close(self) -> None:
        if self.disk is not None:
            self.disk.close()
        if self._leases is not None:
            self._leases.close()
        if self.history is not None:
            self.history.close()

    def _open_disk(self, home: Home | None, clock: Clock) -> DiskTier | None:
        wanted = self._settings.cache
        if home is None or not wanted.enabled or not wanted.warm_bytes:
            return None
        return DiskTier(
            home.cache,
            clock=clock,
            max_bytes=wanted.warm_bytes,
            on_trouble=lambda exc: self._notice("the warm tier", exc),
        )

    def _open_leases(self, home: Home | None) -> FileLeases | None:
        wanted = self._settings.cache
        if self.disk is None or home is None or not wanted.lease_wait_s:
            return None
        return FileLeases(
            home.leases,
            on_trouble=lambda exc: self._notice("computing once for all processes", exc),
            rng=self._rng,
        )

    def _make_shared(self, clock: Clock) -> "RedisTier | None":
        wanted = self._settings.cache
        if not wanted.enabled or not wanted.shared_url:
            return None
        from paceline.cache.redis.tier import RedisTier  # noqa: PLC0415 (needs the extra)

        return RedisTier(
            wanted.shared_url,
            clock=clock,
            budget_s=wanted.shared_budget_s,
            namespace=wanted.shared_namespace,
            on_trouble=lambda exc: self._notice("the cold tier", exc),
            on_invalidated=lambda key: self.cache.dropped_elsewhere(key),  # noqa: PLW0108 (is made later)
            generations=self.generations,
            dice=self._rng,
        )

    def _open_memory(self, clock: Clock) -> MemoryTier[bytes, Snapshot]:
        wanted = self._settings.cache
        return MemoryTier[bytes, Snapshot](
            wanted.hot_entries if wanted.enabled else 0,
            clock=clock,
            max_bytes=wanted.hot_bytes or None,
            policy=POLICIES[wanted.policy],
            on_evict=self._demote,
            rng=self._rng,
        )

    def _demote(self, entry: Entry) -> None:
        """What memory has no room for goes down, unless another process removed something since
        we looked: it may be this, which is not to come back."""
        if self.generations.read((_REMOVED,)) == self._last_removal:
            self.cache.demote(entry)

    def _open_cache(self, clock: Clock, redactor: Redactor) -> ResultCache:
        wanted = self._settings.cache
        return ResultCache(
            self.memory,
            self.disk,
            self._shared,
            self._leases,
            clock=clock,
            freshness=Freshness(
                default_ttl_s=wanted.default_ttl_s,
                jitter=wanted.jitter,
                early=wanted.early_refresh,
                stale_s=wanted.stale_s,
                stale_if_error_s=wanted.stale_if_error_s,
                lease_wait_s=wanted.lease_wait_s,
            ),
            redact=redactor.text,
            rng=self._rng,
        )

    def _open_history(
        self, home: Home | None, clock: Clock, redactor: Redactor
    ) -> SqliteHistory | None:
        kept = self._settings.history
        if home is None or not kept.enabled:
            return None
        try:
            return SqliteHistory(
                home.history,
                clock=clock,
                redactor=redactor,
                keep_inputs=kept.inputs,
                on_loss=lambda exc: self._notice("calls are not recorded", exc),
            )
        except StorageError as exc:
            self._notice("calls are not recorded", exc)
            return None

    def relieve(self) -> int:
        """Lets go of what memory keeps of results; returns how many bytes that was."""
        freed = self.memory.bytes
        self.memory.clear()
        return freed

    def hourly(self, work: Callable[[], object]) -> Callable[[], None]:
        """Has this done each hour, in a thread, until what is returned is called; a StorageError is
        told of, and the next hour it is done again."""
        self._hourly.append(work)
        return functools.partial(self._hourly.remove, work)

    def removed(self) -> None:
        """To be told when single results were removed: other processes of this home let go of
        what they hold in memory, within seconds, and find in the file what is still there."""
        self.generations.bump((_REMOVED,))
        self._last_removal = self.generations.read((_REMOVED,))

    def _follow_removals(self) -> None:
        latest = self.generations.read((_REMOVED,))
        if latest != self._last_removal:
            self._last_removal = latest
            self.memory.clear()

    async def _load(self) -> None:
        """Fills memory with what the file has that is worth most, beside the first calls."""
        wanted = self._settings.cache
        if self.disk is None or not wanted.warm_start_entries:
            return
        reader = DiskReader(self.disk.path, clock=self._clock)
        try:
            await warm_start(
                self.memory,
                reader,
                wanted.warm_start_entries,
                early=wanted.early_refresh,
                flush=functools.partial(self.disk.flush, 1.0),
                stopped=self._stop.is_set,
            )
        except StorageError as exc:
            self._notice("filling memory from the warm tier", exc)

    async def _tidy(self) -> None:
        """Removes what is too old from the history, and does what others want done, hourly, and sees
        to it every few seconds that invalidation and removals of the other processes are known here,
        and ours there."""
        kept = self._settings.history
        for turn in itertools.count():
            self.generations.check()
            self._follow_removals()
            if self.disk is not None:
                self.disk.check()
            self.windows.mark(self._clock.monotonic_ns(), self.cache.totals)
            if self.history is not None and turn % _TURNS_OF_PRUNING == 0:
                max_age_s = kept.retention_days * 86_400
                prune = functools.partial(self.history.prune, max_age_s=max_age_s)
                await asyncio.to_thread(prune, max_records=kept.max_records)
            if turn % _TURNS_OF_PRUNING == 0:
                await self._do_hourly()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), _TIDY_S)
                return

    async def _do_hourly(self) -> None:
        for work in tuple(self._hourly):
            try:
                await asyncio.to_thread(work)
            except StorageError as exc:
                self._notice("removing what is too old", exc)


def shared_address(settings: CacheSettings) -> "RedisAddress":
    """Where the cold tier is. Raises ConfigError that names the setting, and shows no password."""
    from paceline.cache.redis.address import RedisAddress  # noqa: PLC0415 (few have one)

    try:
        return RedisAddress.parse(settings.shared_url)
    except ConfigError as exc:
        given = shown_address(settings.shared_url)
        raise ConfigError(
            f"cache.shared_url: {given} is no address of a Redis server", next_step=exc.next_step
        ) from exc
