"""Better summaries of what a conversation no longer shows, made while nobody waits for them."""

import asyncio
import logging
from collections.abc import Callable
from contextvars import Context
from typing import final

from paceline.engine.conversation import Conversation
from paceline.engine.journal import Compacted, Journal, write

__all__ = ["Summaries"]

_log = logging.getLogger("paceline")


@final
class Summaries:
    """Has them made between turns, one at a time, in a task of its own. A turn that begins meanwhile
    is not held up: the plain lines stand until there is something better, and where that fails. What
    one took counts as that of the turn after which it was made."""

    __slots__ = ("_conversation", "_journal", "_made", "_session_id", "_task")

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

    def begin(self, turn_id: str) -> None:
        """After this turn, unless one is being made."""
        if self._task is None or self._task.done():
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
            compaction = self._conversation.compaction
            entry = Compacted(turn_id, compaction, summary.tokens, summary.cost_usd)
            self._made(entry)
            if self._journal is not None:
                self._journal.note(self._session_id, write(entry))
        except Exception as exc:  # noqa: BLE001 (whatever it is, the session does without)
            _log.warning("No summary was made after turn %s: %s", turn_id, exc)
