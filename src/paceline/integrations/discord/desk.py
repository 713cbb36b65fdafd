"""Answers what is asked for in a chat: with the runtime, and with nothing of Discord."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, final

from paceline.errors import PacelineError
from paceline.integrations.discord.access import Asker
from paceline.integrations.discord.pages import Reply
from paceline.integrations.discord.replies import (
    agents_reply,
    problem_reply,
    result_reply,
    statistics_reply,
)
from paceline.metrics.figures import Snapshot
from paceline.metrics.report import Sort
from paceline.redaction import Redactor
from paceline.runtime import Runtime
from paceline.settings import DiscordSettings

__all__ = ["Answer", "Desk"]

_MOST_SUGGESTIONS: Final = 25
"""What Discord takes."""


@final
class Answer:
    """A reply, and whether it says what went wrong: that is for who asked alone."""

    __slots__ = ("failed", "reply")

    def __init__(self, reply: Reply, *, failed: bool = False) -> None:
        self.reply = reply
        self.failed = failed


@final
class Desk:
    """Answers the commands. Whether somebody may use them was decided before."""

    def __init__(
        self,
        runtime: Runtime,
        settings: DiscordSettings,
        *,
        statistics: Callable[[], Snapshot] | None = None,
        redactor: Redactor | None = None,
    ) -> None:
        """`statistics` reads the figures, on a thread; the default is those of the runtime, which
        begin when it was opened."""
        self._runtime = runtime
        self._settings = settings
        self._statistics = statistics or runtime.metrics.snapshot
        self._redactor = redactor or Redactor()
        self._reading: asyncio.Future[Snapshot] | None = None

    async def statistics(self, agent: str | None, sort: Sort) -> Answer:
        """The statistics of one agent or of all."""

        async def answer() -> Reply:
            return statistics_reply(await self._snapshot(), agent=agent, sort=sort)

        return await self._answer(answer)

    async def agents(self) -> Answer:
        """What can be run."""
        registry = self._runtime.registry
        specs = list(registry.snapshot().values())
        return Answer(agents_reply(specs, broken=len(registry.broken)))

    async def run(self, asker: Asker, agent: str, text: str, *, file_bytes: int) -> Answer:
        """Runs an agent on behalf of who asked, within `discord.timeout_s`; the text is what the
        agent gets, character for character."""

        async def answer() -> Reply:
            outcome = await self._runtime.run(
                agent, text, caller=asker.caller, timeout=self._settings.timeout_s
            )
            if outcome.error is not None:
                raise outcome.error
            return result_reply(outcome, redactor=self._redactor, file_bytes=file_bytes)

        return await self._answer(answer, text, file_bytes=file_bytes)

    def suggestions(self, typed: str) -> list[str]:
        """Names of agents that what was typed so far can be a part of, those first that begin so."""
        typed = typed.casefold()
        found = [name for name in self._runtime.registry.snapshot() if typed in name.casefold()]
        found.sort(key=lambda name: (not name.casefold().startswith(typed), name))
        return found[:_MOST_SUGGESTIONS]

    async def _answer(
        self, work: Callable[[], Awaitable[Reply]], text: str = "", *, file_bytes: int = 0
    ) -> Answer:
        try:
            return Answer(await work())
        except PacelineError as exc:
            reply = problem_reply(
                exc,
                text,
                redactor=self._redactor,
                file_bytes=file_bytes,
                agents_command=self._settings.agents_command,
            )
            return Answer(reply, failed=True)

    async def _snapshot(self) -> Snapshot:
        """The figures; those who ask while they are read get the same ones."""
        if self._reading is None:
            self._reading = asyncio.ensure_future(asyncio.to_thread(self._statistics))
            self._reading.add_done_callback(self._read)
        return await asyncio.shield(self._reading)

    def _read(self, reading: asyncio.Future[Snapshot]) -> None:
        self._reading = None
        if not reading.cancelled():
            reading.exception()  # or asyncio complains where nobody waited to the end
