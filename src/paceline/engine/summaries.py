"""Better summaries of what a conversation no longer shows, made while nobody waits for them."""

import asyncio
import logging
from collections.abc import Callable
from contextvars import Context
from typing import Final, final

from paceline.engine.conversation import Conversation
from paceline.engine.journal import Compacted, Journal, write

__all__ = ["Summaries"]

_log = logging.getLogger("paceline")
_LONGEST: Final = 64
"""Turns that a model which cannot make one is left alone, at most."""


@final
class Summaries:
    """Has them made between turns, one at a time, in a task of its own. A turn that begins meanwhile
    is not held up: the plain lines stand until there is something better, and where that fails. What
    one took counts as that of the turn after which it was made.

    Where none can be made it is tried again after the next turn, then after two more, four, and so on up
    to 64, until there is one. The first time is told of."""

    __slots__ = ("_conversation", "_journal", "_left", "_made", "_pause", "_session_id", "_task")

    def __init__(
        self,
        conversation: Conversation,
        journal: Journal | None,
        session_id: str,
        made: Callable[[Compacted], object],
    ) -> None:
        """`made` is told of each."""
        self._conversation = conversation
        self._journal = journal
        self._session_id = session_id
        self._made = made
        self._task: asyncio.Task[None] | None = None
        self._pause = 0  # in turns, since one could be made last
        self._left = 0  # of it

    def begin(self, turn_id: str) -> None:
        """After this turn, unless one is being made, or could not be made of late."""
        if self._task is not None and not self._task.done():
            return
        self._left -= 1
        if self._left <= 0:
            # In no context: whoever sent the message may be done with it before this is.
            self._task = asyncio.get_running_loop().create_task(
                self._make(turn_id), context=Context()
            )

    async def close(self, patience_s: float) -> None:
        """Waits so many seconds for the one that is being made, then gives it up; it is made anew
        when the session goes on."""
        task = self._task
        if task is None or task.done():
            return
        try:
            if patience_s > 0:
                await asyncio.wait((task,), timeout=patience_s)
        finally:
            task.cancel()
            await asyncio.wait((task,))

    async def _make(self, turn_id: str) -> None:
        try:
            summary = await self._conversation.compact()
            if summary is None:
                return
            self._pause = 0
            compaction = self._conversation.compaction
            entry = Compacted(turn_id, compaction, summary.tokens, summary.cost_usd)
            self._made(entry)
            if self._journal is not None:
                self._journal.note(self._session_id, write(entry))
        except Exception as exc:  # noqa: BLE001 (whatever it is, the session does without)
            if not self._pause:
                _log.warning(
                    "No summary was made after turn %s, and it is tried less and less often: %s",
                    turn_id,
                    exc,
                )
            self._pause = self._left = min(2 * self._pause or 1, _LONGEST)
