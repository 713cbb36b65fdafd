"""`paceline discord`: the agents and their figures in a chat."""

import asyncio
import signal
from collections.abc import Sequence
from pathlib import Path

from paceline.cli.completed import completed
from paceline.cli.output import OK, note
from paceline.cli.place import Place
from paceline.cli.replay import replay
from paceline.errors import ConfigError
from paceline.history.sqlite import SqliteReader
from paceline.integrations.discord.access import Access
from paceline.metrics.figures import Snapshot
from paceline.redaction import Redactor, Secret, environment_secrets
from paceline.runtime import Runtime
from paceline.settings import Settings

__all__ = ["discord"]

_VARIABLE = "PACELINE_DISCORD_TOKEN"


def discord(place: Place, dirs: Sequence[Path] | None) -> int:
    """Serves until it is interrupted or terminated."""
    token = _token(place)
    return completed(_served(place, dirs, token))


def _token(place: Place) -> Secret:
    """From the environment and nowhere else: what stands in files and arguments is seen by others.

    Raises ConfigError where there is none.
    """
    token = place.environ.get(_VARIABLE, "").strip()
    if not token:
        raise ConfigError(
            f"there is no token for the Discord bot: {_VARIABLE} is not set",
            next_step="Make a bot at https://discord.com/developers/applications, copy its token"
            f" (Bot, Reset Token), and put it into the environment: read -rs {_VARIABLE};"
            f" export {_VARIABLE}",
        )
    return Secret(token)


async def _served(place: Place, dirs: Sequence[Path] | None, token: Secret) -> int:
    # Loads discord.py, which no other command needs.
    from paceline.integrations.discord.bot import Bot  # noqa: PLC0415
    from paceline.integrations.discord.desk import Desk  # noqa: PLC0415
    from paceline.integrations.discord.logs import redacted_logs  # noqa: PLC0415

    settings = place.settings()
    access = Access.of(settings.discord)
    redactor = Redactor([token, *environment_secrets(place.environ)])
    runtime = place.runtime(settings, dirs)
    desk = Desk(
        runtime,
        settings.discord,
        statistics=lambda: _figures(place, settings, runtime),
        redactor=redactor,
    )
    bot = Bot(desk, access, drain_s=settings.run.drain_s, on_connect=_connected)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with redacted_logs(redactor, note):
        async with runtime:
            for notice in runtime.notices:
                note(f"note: {notice}")
            _tell_if_useless(access)
            await bot.run(token, stop)
    return OK


def _figures(place: Place, settings: Settings, runtime: Runtime) -> Snapshot:
    """Those of `paceline stats`, so that chat and terminal say the same; without a history, what
    this process did."""
    if not settings.history.enabled:
        return runtime.metrics.snapshot()
    return replay(SqliteReader(place.home.history)).snapshot()


def _connected(name: str) -> None:
    note(f"connected to Discord as {name}; stop with Ctrl-C")


def _tell_if_useless(access: Access) -> None:
    if access.nobody:
        note(
            "note: nobody may use the commands yet. Put your Discord user id into discord.users, or"
            " ids of roles into discord.stats_roles, discord.agents_roles and discord.run_roles."
        )
