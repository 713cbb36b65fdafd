"""Who may use which command of the bot."""

import itertools
from collections.abc import Callable

import msgspec
import pytest

from paceline.call import Caller
from paceline.errors import ConfigError
from paceline.integrations.discord.access import (
    Access,
    Asker,
    Command,
)
from paceline.settings import DiscordSettings

Decide = Callable[[Access, str, Asker], str | None]

STATS, AGENTS, RUN = 11, 12, 13
NAMES = {"sel_agent_stats": STATS, "agents": AGENTS, "run": RUN, "unknown": 0}
ROLES = [frozenset[int](), *(frozenset({r}) for r in (STATS, AGENTS, RUN)), {STATS, AGENTS, RUN}]


def _access(**settings: str) -> Access:
    return Access.of(msgspec.structs.replace(DiscordSettings(), **settings))


def check_by_the_book(decide: Decide) -> None:
    """Of all cases there are, nothing but a user id, or on a server a role of the command, opens a
    command."""
    for users, stats, agents, run in itertools.product((False, True), repeat=4):
        access = _access(
            users="1" * users,
            stats_roles=str(STATS) * stats,
            agents_roles=str(AGENTS) * agents,
            run_roles=str(RUN) * run,
        )
        open_to = {STATS: stats, AGENTS: agents, RUN: run}
        cases = itertools.product(NAMES.items(), (1, 2), (None, 5), ROLES)
        for (name, role), user, guild, roles in cases:
            by_role = guild is not None and role in roles and open_to[role]
            may = (users and user == 1) or by_role
            assert (decide(access, name, Asker(user, guild, frozenset(roles))) is None) is may


def test_decisions_are_by_the_book() -> None:
    """Nothing but a user id, or on a server a role of the command, opens a command. (E-17)"""
    check_by_the_book(Access.refusal)


def test_the_check_finds_open_doors() -> None:
    """The check fails for decisions that let somebody in whom the settings do not name."""

    def everyone_if_none_is_named(access: Access, name: str, asker: Asker) -> str | None:
        return access.refusal(name, asker) if access.roles.get(name) else None

    def roles_in_direct_messages(access: Access, name: str, asker: Asker) -> str | None:
        return access.refusal(name, Asker(asker.user, asker.guild or 1, asker.roles))

    def any_role_for_any_command(access: Access, name: str, asker: Asker) -> str | None:
        return access.refusal("run", asker)

    for mutant in (everyone_if_none_is_named, roles_in_direct_messages, any_role_for_any_command):
        with pytest.raises(AssertionError):
            check_by_the_book(mutant)


def test_a_refusal_says_what_to_do() -> None:
    """A refusal names the command, the way to be allowed, and the id that is needed for it."""
    text = _access().refusal("run", Asker(77, 5))
    assert text is not None
    assert all(part in text for part in ("/run", "role", "77", "`discord.users`"))
    direct = _access(run_roles="1").refusal("run", Asker(77, None, frozenset({1})))
    assert direct is not None
    assert "direct messages" in direct


def test_renamed_commands_keep_their_roles() -> None:
    """A role opens its command under the name that the command has."""
    access = _access(run_roles="1", run_command="do", agents_command="run")
    asker = Asker(77, 5, frozenset({1}))
    assert access.refusal("do", asker) is None
    assert access.refusal("run", asker) is not None


def test_users_and_servers_tell_callers_apart() -> None:
    """The user's id is the caller's user, the server's id the tenant."""
    assert Asker(77, 5).caller == Caller(user="77", tenant="5")
    assert Asker(77).caller == Caller(user="77")


def test_it_is_known_when_nobody_may() -> None:
    """Settings that allow nothing to anybody are recognised."""
    assert _access().nobody
    assert not _access(users="1").nobody
    assert not _access(stats_roles="1").nobody


def test_ids_are_lists_in_a_text() -> None:
    """Ids stand beside each other, with commas or spaces between; what is none is refused."""
    assert _access(users=" 12,34  56,\n78 ").users == {12, 34, 56, 78}
    for wrong in ("ada", "12;34", "-5", "0", "1.5", "²", "9" * 21):
        with pytest.raises(ConfigError, match=r"discord\.run_roles: .* is no id"):
            _access(run_roles=wrong)


def test_command_names_are_checked() -> None:
    """Names that Discord would not take, and equal ones, are refused with what to correct."""
    assert _access().names[Command.RUN] == "run"
    for name in ("Run", "", "a b", "x" * 33, "run\n"):
        with pytest.raises(ConfigError, match=r"discord\.run_command"):
            _access(run_command=name)
    with pytest.raises(ConfigError, match="same name"):
        _access(run_command="agents")
