"""Who may use which command. Pure; nobody may what nothing allows."""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Final

import msgspec

from paceline.call import Caller
from paceline.errors import ConfigError
from paceline.settings import DiscordSettings

__all__ = ["Access", "Asker", "Command"]

_NAME: Final = re.compile(r"[-_a-z0-9]{1,32}")
_ID: Final = re.compile(r"[1-9][0-9]{0,19}")


class Command(StrEnum):
    """What can be asked for, whatever its name is in the chat."""

    STATS = "stats"
    AGENTS = "agents"
    RUN = "run"


class Asker(msgspec.Struct, frozen=True):
    """Who uses a command, and where. `guild` None is a direct message."""

    user: int
    guild: int | None = None
    roles: frozenset[int] = frozenset()

    @property
    def caller(self) -> Caller:
        """On whose behalf the call is made: users are told apart by their ids, servers are
        tenants."""
        return Caller(user=str(self.user), tenant=None if self.guild is None else str(self.guild))


class Access(msgspec.Struct, frozen=True):
    """What the commands are called, and who may use them."""

    names: Mapping[Command, str]
    users: frozenset[int]
    """They may use every command, in direct messages too."""
    roles: Mapping[str, frozenset[int]]
    """Those that may use a command on a server, by its name."""

    @classmethod
    def of(cls, settings: DiscordSettings) -> "Access":
        """What the settings allow. Raises ConfigError for ids that are none, and for names that
        Discord does not take."""
        names = {
            Command.STATS: settings.stats_command,
            Command.AGENTS: settings.agents_command,
            Command.RUN: settings.run_command,
        }
        _check_names(names)
        roles = {
            settings.stats_command: _ids("stats_roles", settings.stats_roles),
            settings.agents_command: _ids("agents_roles", settings.agents_roles),
            settings.run_command: _ids("run_roles", settings.run_roles),
        }
        return cls(names, _ids("users", settings.users), roles)

    @property
    def nobody(self) -> bool:
        """Whether nothing is allowed to anybody."""
        return not (self.users or any(self.roles.values()))

    def refusal(self, name: str, asker: Asker) -> str | None:
        """Why `asker` may not use the command called so, and what to do about it; None if they
        may."""
        if asker.user in self.users:
            return None
        if asker.guild is None:
            return (
                f"You may not use /{name} in direct messages. Use it on a server where you have a"
                " role that may, or ask who runs this bot to add your id,"
                f" {asker.user}, to `discord.users`."
            )
        if asker.roles & self.roles.get(name, frozenset()):
            return None
        return (
            f"You may not use /{name}. Ask who runs this bot for a role that may, or to add your"
            f" id, {asker.user}, to `discord.users`."
        )


def _check_names(names: Mapping[Command, str]) -> None:
    for command, name in names.items():
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"discord.{command}_command: {name!r} cannot be the name of a command",
                next_step="Use up to 32 lower-case letters, digits, hyphens and underscores.",
            )
    if len(set(names.values())) < len(names):
        raise ConfigError(
            "two commands of the Discord bot have the same name",
            next_step="Give stats_command, agents_command and run_command of [discord] a name each.",
        )


def _ids(key: str, text: str) -> frozenset[int]:
    words = text.replace(",", " ").split()
    for word in words:
        if not _ID.fullmatch(word):
            raise ConfigError(
                f"discord.{key}: {word!r} is no id",
                next_step="Turn on Developer Mode in Discord (Settings, Advanced); then Copy ID is"
                " in the menu of each user and role.",
            )
    return frozenset(map(int, words))
