"""Reloads agents when their files change."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Iterable, Sequence
from pathlib import Path
from typing import Final, Protocol

from watchfiles import awatch  # pyright: ignore[reportUnknownVariableType] (names trio's types)

from paceline.agents.registry import Changes

__all__ = ["Reloadable", "watch", "watching"]

_log = logging.getLogger("paceline")
_MS: Final = 1_000


class Reloadable(Protocol):
    """What is watched; the registry of agents is one."""

    @property
    def dirs(self) -> Sequence[Path]:
        """The directories."""
        ...

    async def reload_async(self, *, retry_broken: bool = False) -> Changes:
        """See AgentRegistry.reload."""
        ...


@contextlib.asynccontextmanager
async def watching(registry: Reloadable, *, stamp: Path | None) -> AsyncGenerator[None]:
    """Has `watch` run beside the block."""
    stop = asyncio.Event()
    task = asyncio.create_task(watch(registry, stop, stamp=stamp))
    try:
        yield
    finally:
        stop.set()
        await task


async def watch(
    registry: Reloadable,
    stop: asyncio.Event,
    *,
    stamp: Path | None = None,
    recheck_s: float = 0.5,
) -> None:
    """Reloads `registry` whenever Python files in its directories change, until `stop` is set.

    Changes that come close together make one reload. Touching the file `stamp` reloads too, and
    tries broken modules again. The file system tells of changes at once; every `recheck_s`
    seconds the stamp is looked at, and whether directories came, went or were replaced. Whatever
    fails is logged, and watching goes on.
    """
    stamped = _identity(stamp)
    while not stop.is_set():
        places = _places(registry.dirs)
        unsure = True  # something may have changed before the watch began
        try:
            async with contextlib.aclosing(_events(places, stop, recheck_s)) as events:
                async for changed in events:
                    now, asked = _places(registry.dirs), _identity(stamp)
                    if unsure or changed or now != places or asked != stamped:
                        await _reload(registry, retry_broken=asked != stamped)
                    unsure, stamped = False, asked
                    if now != places:
                        break
        # The watcher reports its own trouble (too many watches, say) as a RuntimeError.
        except (OSError, RuntimeError):
            _log.exception("agents' directories cannot be watched at the moment; trying again")
            await _pause(stop, recheck_s)


async def _events(
    places: Iterable[tuple[Path, tuple[int, ...]]], stop: asyncio.Event, recheck_s: float
) -> AsyncGenerator[bool]:
    """True when files changed, False when `recheck_s` passed, until `stop` is set."""
    dirs = [path for path, _ in places]
    while not dirs and not stop.is_set():
        await _pause(stop, recheck_s)
        yield False
    if stop.is_set():
        return
    # Unfiltered: changes that do not matter must not keep us from looking at the rest.
    watcher = awatch(
        *dirs,
        watch_filter=None,
        stop_event=stop,
        rust_timeout=max(1, int(recheck_s * _MS)),
        yield_on_timeout=True,
    )
    async with contextlib.aclosing(watcher) as batches:
        async for batch in batches:
            yield any(_matters(Path(path)) for _, path in batch)


def _matters(path: Path) -> bool:
    """Python files, and directories, which are moved and removed as a whole."""
    return path.suffix == ".py" or (not path.suffix and path.name != "__pycache__")


def _places(dirs: Iterable[Path]) -> list[tuple[Path, tuple[int, ...]]]:
    """The directories that exist, and which directory each of them is now."""
    found = ((path, _identity(path, changing=False)) for path in dirs)
    return [(path, identity) for path, identity in found if identity is not None]


def _identity(path: Path | None, *, changing: bool = True) -> tuple[int, ...] | None:
    """Which file a path leads to, and if `changing` in which state; None for no file."""
    try:
        at = path.stat() if path is not None else None
    except OSError:
        return None
    if at is None:
        return None
    return (at.st_dev, at.st_ino, *((at.st_mtime_ns, at.st_ctime_ns) if changing else ()))


async def _reload(registry: Reloadable, *, retry_broken: bool) -> None:
    try:
        changes = await registry.reload_async(retry_broken=retry_broken)
    except Exception:  # noqa: BLE001 (the watch outlives whatever one reload meets)
        _log.exception("reloading agents failed")
        return
    if changes:
        _log.info("agents: %s", changes)


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()
