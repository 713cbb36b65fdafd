"""Work that nobody wants any more: cancelled, and seen out until it has really ended."""

import asyncio
import logging
from collections.abc import Callable, Collection
from typing import Final, final

__all__ = ["Losers"]

_log = logging.getLogger("paceline")
_CLEANUP_S: Final = 5.0


@final
class Losers:
    """Those of several tasks for one answer that were not the first.

    Nobody waits for them but `close`. Each has five seconds to clean up; then it is cancelled once
    more, which ends what it still waits for.
    """

    __slots__ = ("_seen_out",)

    def __init__(self) -> None:
        self._seen_out: set[asyncio.Task[None]] = set()

    def add(self, tasks: Collection[asyncio.Task[object]], over: Callable[[], object]) -> None:
        """Cancels them; `over` is called when all of them have ended, at once if they have."""
        for task in tasks:
            task.cancel()
            task.add_done_callback(_look)
        if all(task.done() for task in tasks):
            over()
            return
        seen_out = asyncio.create_task(_see_out(tasks, over))
        self._seen_out.add(seen_out)
        seen_out.add_done_callback(self._seen_out.discard)

    async def close(self) -> None:
        """Waits for them, ten seconds at most: what does not heed being cancelled cannot be ended,
        only told of."""
        if not self._seen_out:
            return
        _, late = await asyncio.wait(self._seen_out, timeout=2 * _CLEANUP_S)
        for seen_out in late:
            seen_out.cancel()
        if late:
            _log.warning("%d cancelled calls have not ended: they ignore that", len(late))


async def _see_out(tasks: Collection[asyncio.Task[object]], over: Callable[[], object]) -> None:
    _, late = await asyncio.wait(tasks, timeout=_CLEANUP_S)
    for task in late:
        task.cancel()
    if late:
        await asyncio.wait(late)
    over()


def _look(task: asyncio.Task[object]) -> None:
    """Nobody else asks what came of it."""
    if not task.cancelled():
        task.exception()
