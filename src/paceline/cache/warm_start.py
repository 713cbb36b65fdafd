"""Loading memory from the file at the start, beside the first calls."""

import asyncio
from collections.abc import Callable
from typing import Final

from paceline.cache.disk.reader import DiskReader
from paceline.cache.disk.rows import Found
from paceline.cache.memory.tier import MemoryTier
from paceline.cache.snapshot import Form, Snapshot

__all__ = ["warm_start"]

_AT_ONCE: Final = 64
"""Results between two turns of the loop, some tenths of a millisecond of work."""


async def warm_start(
    memory: MemoryTier[bytes, Snapshot],
    reader: DiskReader,
    limit: int,
    *,
    early: float = 0.0,
    flush: Callable[[], object] = bool,
    stopped: Callable[[], bool] = bool,
) -> int:
    """Brings the `limit` most valuable results of the file into memory, as many as there is room
    for; how many those were.

    The file is read in a thread, after `flush` has brought it up to date. Ends soon after
    `stopped` says so. Raises StorageError if the file cannot be read.
    """
    lists = reader.hottest(min(limit, _AT_ONCE))
    empty: list[tuple[bytes, Found]] = []

    def read() -> list[tuple[bytes, Found]]:
        flush()
        return next(lists, empty)

    loaded = 0
    try:
        while loaded < limit and len(memory) < memory.max_entries and not stopped():
            epoch = memory.epoch  # what is removed from here on is not to come back
            found = await asyncio.to_thread(read)
            if not found:
                break
            room = min(limit - loaded, memory.max_entries - len(memory))
            for key, row in found[: max(0, room)]:
                about = row.about
                fresh_ns = row.remaining_ns - max(about.stale_ns, about.rescue_ns)
                if fresh_ns > 0 and memory.peek(key) is None:
                    snapshot = Snapshot(Form.ENCODED, row.value)
                    memory.put(key, snapshot, fresh_ns, about=about, early=early, since=epoch)
                    loaded += 1
    finally:
        await asyncio.to_thread(lists.close)
    return loaded
