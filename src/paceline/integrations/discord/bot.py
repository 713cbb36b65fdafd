"""The bot: takes what Discord hands over to the desk, and brings back the answers.

A thin layer around discord.py, which keeps the connection: a gateway that is lost is looked for
again, with growing pauses, and the session is resumed.
"""

import asyncio
import contextlib
import io
import logging
from collections.abc import Awaitable, Callable
from typing import Final, final

from paceline.errors import Category, ConfigError, PacelineError
from paceline.extras import missing
from paceline.integrations.discord.access import Access, Asker, Command
from paceline.integrations.discord.desk import Answer, Desk
from paceline.integrations.discord.pages import Reply
from paceline.metrics.report import Sort
from paceline.redaction import Secret

try:
    import aiohttp
    import discord
    from discord import app_commands
except ImportError as exc:
    raise missing("the Discord bot needs", "discord.py", "discord") from exc

__all__ = ["TOKEN_VARIABLE", "Bot"]

TOKEN_VARIABLE: Final = "PACELINE_DISCORD_TOKEN"  # noqa: S105 (where the token is, not the token)

_log = logging.getLogger("paceline.discord")
_LONGEST_INPUT: Final = 6_000
"""Characters that Discord takes for one option."""
_LAST_WORDS_S: Final = 2.0
_STOPPING: Final = "The bot is stopping. Ask again in a little while."
_BROKEN: Final = (
    "Something went wrong in the bot, not in an agent. Who runs it finds the error in its output."
)
_CHANGED: Final = "This command is not what it was. Ask again in a minute, then Discord knows it."
_NEW_TOKEN: Final = (
    "Take a new one from https://discord.com/developers/applications (Bot, Reset Token),"
    f" and put it into {TOKEN_VARIABLE}."
)
_UNREACHABLE: Final = "Check the network and https://discordstatus.com, then start it again."
_ENDINGS: Final = {
    4004: ("Discord does not accept the token any more", _NEW_TOKEN),
    4011: ("the bot is on too many servers for one connection", "Run one bot for fewer servers."),
}
"""Of connections, by the code that Discord closed them with."""

Work = Callable[[Asker], Awaitable[Answer]]


@final
class Bot:
    """The slash commands of one Discord application."""

    def __init__(
        self,
        desk: Desk,
        access: Access,
        *,
        drain_s: float = 5.0,
        on_connect: Callable[[str], None] | None = None,
    ) -> None:
        """`on_connect` is told the bot's name whenever a session begins; `drain_s` is how many
        seconds those who wait for answers have when the bot is to stop."""
        self._desk = desk
        self._access = access
        self._drain_s = drain_s
        self._on_connect = on_connect
        self._answering: set[asyncio.Task[object]] = set()
        self._stopping = False
        self._client = _Client(self)

    async def run(self, token: Secret, stop: asyncio.Event) -> None:
        """Serves from now until `stop` is set.

        Raises ConfigError for a token that Discord does not accept, and PacelineError
        (Category.NETWORK) where Discord cannot be reached in the beginning or ends the connection
        for good.
        """
        async with self._client:
            connection = asyncio.create_task(self._connection(token))
            stopped = asyncio.create_task(stop.wait())
            try:
                await asyncio.wait((connection, stopped), return_when=asyncio.FIRST_COMPLETED)
                if not connection.done():
                    await self._drain()
            finally:
                stopped.cancel()
                await self._client.close()
                if not connection.done():
                    connection.cancel()  # it may be pausing before it connects again
                await asyncio.wait((connection, stopped))
            if not connection.cancelled():
                connection.result()

    async def _connection(self, token: Secret) -> None:
        try:
            await self._client.start(token.reveal())
        except discord.LoginFailure as exc:
            raise ConfigError(
                f"Discord does not accept the token in {TOKEN_VARIABLE}",
                next_step=_NEW_TOKEN,
                category=Category.AUTHENTICATION,
            ) from exc
        except discord.ConnectionClosed as exc:
            what, advice = _ENDINGS.get(
                exc.code, (f"Discord ended the connection (code {exc.code})", _UNREACHABLE)
            )
            raise PacelineError(what, next_step=advice, category=Category.NETWORK) from exc
        except app_commands.CommandSyncFailure as exc:
            raise ConfigError(
                f"Discord does not take the commands: {exc}",
                next_step="Correct their names in [discord].",
            ) from exc
        except (discord.DiscordException, aiohttp.ClientError, OSError) as exc:
            raise PacelineError(
                f"Discord cannot be reached: {exc}",
                next_step=_UNREACHABLE,
                category=Category.NETWORK,
            ) from exc

    async def _drain(self) -> None:
        """Lets those who wait have their answers, and tells the others."""
        self._stopping = True
        if self._answering:
            _, late = await asyncio.wait(self._answering, timeout=self._drain_s)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)

    # -- what Discord tells --------------------------------------------------------------------

    def connected(self) -> None:
        """A session begins."""
        if self._on_connect is not None:
            self._on_connect(str(self._client.user))

    async def admitted(self, interaction: discord.Interaction[discord.Client]) -> bool:
        """The one gate: whether this may be answered. Who may not is told why, and nobody else."""
        name = str(interaction.data.get("name", "")) if interaction.data else ""
        why = self._access.refusal(name, _asker(interaction))
        if self._stopping:
            why = _STOPPING
        if why is None:
            return True
        if interaction.type is discord.InteractionType.autocomplete:
            await interaction.response.autocomplete([])
        else:
            await interaction.response.send_message(why, ephemeral=True)
        return False

    async def answer(
        self, interaction: discord.Interaction[discord.Client], work: Work, *, private: bool
    ) -> None:
        """Says at once that the answer will come, for answers take longer than the three seconds
        that Discord waits, and then what it is."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 (discord.py runs each command in a task)
        self._answering.add(task)
        try:
            await interaction.response.defer(ephemeral=private, thinking=True)
            answer = await self._worked(work, _asker(interaction))
            await _show(interaction, answer, private=private)
        except asyncio.CancelledError:
            with contextlib.suppress(TimeoutError, discord.DiscordException, aiohttp.ClientError):
                async with asyncio.timeout(_LAST_WORDS_S):
                    await _show(interaction, _failed(_STOPPING), private=private)
            raise
        except (discord.DiscordException, aiohttp.ClientError) as exc:
            _log.warning("an answer could not be given: %s", exc)
        finally:
            self._answering.discard(task)

    async def _worked(self, work: Work, asker: Asker) -> Answer:
        try:
            return await work(asker)
        except Exception:  # noqa: BLE001 (a defect of ours: who asked is not left waiting)
            _log.exception("a command failed")
            return _failed(_BROKEN)

    async def failed(
        self,
        interaction: discord.Interaction[discord.Client],
        error: app_commands.AppCommandError,
    ) -> None:
        """A command could not be called: what Discord knows of it is not what it is."""
        _log.error("a command could not be called", exc_info=error)
        with contextlib.suppress(discord.DiscordException, aiohttp.ClientError):
            if not interaction.response.is_done():
                await interaction.response.send_message(_CHANGED, ephemeral=True)

    # -- the commands --------------------------------------------------------------------------

    def add_commands(self, tree: app_commands.CommandTree[discord.Client]) -> None:
        """Makes them known to discord.py, under the names of the settings."""
        names, desk = self._access.names, self._desk

        async def suggested(
            _interaction: discord.Interaction[discord.Client], typed: str
        ) -> list[app_commands.Choice[str]]:
            return [app_commands.Choice(name=n, value=n) for n in desk.suggestions(typed)]

        @tree.command(name=names[Command.STATS], description="How the agents perform.")
        @app_commands.describe(agent="Only this one.", sort="Which agent comes first.")
        @app_commands.autocomplete(agent=suggested)
        async def statistics(
            interaction: discord.Interaction[discord.Client],
            agent: str | None = None,
            sort: Sort = "name",
        ) -> None:
            await self.answer(interaction, lambda _: desk.statistics(agent, sort), private=False)

        @tree.command(name=names[Command.AGENTS], description="Which agents there are.")
        async def agents(interaction: discord.Interaction[discord.Client]) -> None:
            await self.answer(interaction, lambda _: desk.agents(), private=False)

        @tree.command(name=names[Command.RUN], description="Run an agent.")
        @app_commands.describe(
            agent="Its name.", input="What it is to do.", share="Show the result to everyone here."
        )
        @app_commands.autocomplete(agent=suggested)
        async def run(
            interaction: discord.Interaction[discord.Client],
            agent: str,
            input: app_commands.Range[str, 1, _LONGEST_INPUT],  # noqa: A002 (what users see)
            share: bool = False,  # noqa: FBT001, FBT002 (as Discord gives it)
        ) -> None:
            def work(asker: Asker) -> Awaitable[Answer]:
                return desk.run(asker, agent, input, file_bytes=interaction.filesize_limit)

            await self.answer(interaction, work, private=not share)

        _ = statistics, agents, run


@final
class _Client(discord.Client):
    """Needs to know of servers and their roles, and of nothing that is said there."""

    def __init__(self, bot: Bot) -> None:
        intents = discord.Intents.none()
        intents.guilds = True
        super().__init__(
            intents=intents, allowed_mentions=discord.AllowedMentions.none(), max_messages=None
        )
        self._bot = bot
        self._tree = _Tree(bot, self)

    async def setup_hook(self) -> None:
        """Tells Discord the commands."""
        await self._tree.sync()

    async def on_connect(self) -> None:
        """A session begins."""
        self._bot.connected()


@final
class _Tree(app_commands.CommandTree[discord.Client]):
    def __init__(self, bot: Bot, client: discord.Client) -> None:
        super().__init__(
            client,
            allowed_contexts=app_commands.AppCommandContext(guild=True, dm_channel=True),
            allowed_installs=app_commands.AppInstallationType(guild=True, user=False),
        )
        self._bot = bot
        bot.add_commands(self)

    async def interaction_check(self, interaction: discord.Interaction[discord.Client], /) -> bool:
        """discord.py asks here before it looks for a command."""
        return await self._bot.admitted(interaction)

    async def on_error(
        self,
        interaction: discord.Interaction[discord.Client],
        error: app_commands.AppCommandError,
        /,
    ) -> None:
        """discord.py comes here with what it raised."""
        await self._bot.failed(interaction, error)


def _asker(interaction: discord.Interaction[discord.Client]) -> Asker:
    user = interaction.user
    roles = user.roles if isinstance(user, discord.Member) else ()
    # The role that everybody has is that of the server's own id; it may be allowed like any other.
    return Asker(user.id, interaction.guild_id, frozenset([role.id for role in roles]))


def _failed(text: str) -> Answer:
    return Answer(Reply((text,)), failed=True)


async def _show(
    interaction: discord.Interaction[discord.Client], answer: Answer, *, private: bool
) -> None:
    """The first page takes the place of "thinking"; the others follow it.

    What went wrong is for who asked alone: Discord lets one change the text of an answer, but not
    who sees it, so that one that everyone would see is taken away.
    """
    first, *others = answer.reply.pages
    hidden = private or answer.failed
    files = _files(answer.reply)
    if answer.failed and not private:
        await interaction.delete_original_response()
        await interaction.followup.send(first, files=files, ephemeral=True)
    else:
        await interaction.edit_original_response(content=first, attachments=files)
    for page in others:
        await interaction.followup.send(page, ephemeral=hidden)


def _files(reply: Reply) -> list[discord.File]:
    if not reply.file:
        return []
    text = reply.file.encode("utf-8", "backslashreplace")
    return [discord.File(io.BytesIO(text), reply.file_name)]
