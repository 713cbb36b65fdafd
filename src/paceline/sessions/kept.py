"""The journal of one session in the file of all of them."""

import asyncio
from typing import final

from paceline.call import Caller
from paceline.engine.journal import TurnBegan, read
from paceline.history.sessions import SessionStore

__all__ = ["KeptJournal"]


@final
class KeptJournal:
    """Writes a session down from its first message on: one in which nothing was said leaves nothing
    behind. A journal as `paceline.engine.journal` has it."""

    __slots__ = ("_caller", "_one_at_a_time", "_open", "_resume", "_store")

    def __init__(self, store: SessionStore, caller: Caller, *, resume: bool = False) -> None:
        """With `resume` of a session that there is."""
        self._store = store
        self._caller = caller
        self._resume = resume
        self._open = False
        self._one_at_a_time = asyncio.Lock()

    async def append(self, session_id: str, entry: bytes) -> None:
        """Raises StorageError, and UsageError where the session cannot go on here."""
        if not self._open:
            first = read(entry)
            await self._begin(session_id, first.text if isinstance(first, TurnBegan) else "")
        await self._store.append(session_id, entry)

    def note(self, session_id: str, entry: bytes) -> None:
        """Raises UsageError where nothing was appended before."""
        self._store.note(session_id, entry)

    async def load(self, session_id: str) -> list[bytes]:
        """What was said before; nothing in a new session. Raises as `append`."""
        if not self._resume:
            return []
        await self._begin(session_id)
        return await self._store.load(session_id)

    async def _begin(self, session_id: str, title: str = "") -> None:
        caller = self._caller
        async with self._one_at_a_time:
            if self._open:
                return
            await self._store.open(
                session_id, user=caller.user, tenant=caller.tenant, title=title, resume=self._resume
            )
            self._open = True
