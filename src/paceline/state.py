"""What a runtime keeps: results, generations of tags, history; opened, tidied and closed together.

Each part can fail to open, or later, without the others: it costs what it would have given, never
a call, and somebody is told why.
"""

import asyncio
import contextlib
import functools
import itertools
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self, final

from paceline.cache.disk import DiskTier
from paceline.cache.generations import Generations
from paceline.cache.memory import MemoryTier
from paceline.cache.snapshot import Snapshot
from paceline.cache.tiered import ResultCache
from paceline.clock import Clock
from paceline.config import Settings
from paceline.errors import PacelineError, StorageError
from paceline.history.sqlite import SqliteHistory
from paceline.home import Home
from paceline.redaction import Redactor

__all__ = ["State"]

_TIDY_S: Final = 5.0
_TURNS_OF_PRUNING: Final = 720


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
        notice: Callable[[str, PacelineError], None],
    ) -> None:
        """Opens all parts; `home` None keeps everything in memory. `notice(what, error)` is told
        of what cannot be used, from any thread."""
        self._settings = settings
        self._notice = notice
        self._stop = asyncio.Event()
        self.generations = Generations(
            home.generations if home is not None else None,
            on_trouble=lambda exc: notice("invalidation across processes", exc),
        )
        self._disk = self._open_disk(home, clock)
        self.cache = self._open_cache(clock)
        self.history = self._open_history(home, clock, redactor)
        """None where calls are not recorded."""

    async def __aenter__(self) -> Self:
        self._tidying = asyncio.create_task(self._tidy())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        try:
            await self._tidying
        finally:
            await asyncio.to_thread(self._close)

    def _close(self) -> None:
        if self._disk is not None:
            self._disk.close()
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

    def _open_cache(self, clock: Clock) -> ResultCache:
        wanted = self._settings.cache
        entries = wanted.hot_entries if wanted.enabled else 0
        memory = MemoryTier[bytes, Snapshot](entries, clock=clock)
        return ResultCache(memory, self._disk, default_ttl_s=wanted.default_ttl_s)

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

    async def _tidy(self) -> None:
        """Removes what is too old from the history, hourly, and sees to it every few seconds that
        invalidation still reaches the other processes."""
        kept = self._settings.history
        for turn in itertools.count():
            self.generations.check()
            if self.history is not None and turn % _TURNS_OF_PRUNING == 0:
                max_age_s = kept.retention_days * 86_400
                prune = functools.partial(self.history.prune, max_age_s=max_age_s)
                await asyncio.to_thread(prune, max_records=kept.max_records)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), _TIDY_S)
                return
