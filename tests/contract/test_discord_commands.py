"""The slash commands, through the real discord.py: what Discord is told, and who gets what."""

import asyncio
from typing import Any

import pytest

from paceline.call import Caller
from paceline.metrics.figures import Snapshot
from paceline.settings import DiscordSettings
from tests.contract.discord_bot import PASSWORD, connected, figures
from tests.contract.discord_gateway import GUILD, ROLE, STRANGER, TOKEN, USER, Asked

# discord.py imports a module that Python 3.13 no longer has.
pytestmark = pytest.mark.filterwarnings("ignore:'audioop' is deprecated:DeprecationWarning")

ONE = ("host_exec", 127, 89, 2, 12.3)
ONE_TEXT = (
    "**Agent Performance Statistics**\n"
    "\n"
    "**host_exec**\n"
    "  Calls: 127 (cached: 89)\n"
    "  Cache hit rate: 70.1%\n"
    "  Avg time: 12.3ms\n"
    "  Errors: 2 (1.6%)"
)
OTHER_TEXT = (
    "**Agent Performance Statistics**\n"
    "\n"
    "**host_exec**\n"
    "  Calls: 247 (cached: 156)\n"
    "  Cache hit rate: 63.2%\n"
    "  Avg time: 8.7ms\n"
    "  Errors: 3 (1.2%)"
)
FENCE = "```"


def quiet(asked: Asked) -> bool:
    """Whether nobody is called by what was said."""
    return all(
        m["allowed_mentions"] is not None and m["allowed_mentions"]["parse"] == []
        for m in asked.messages
    )


async def test_commands_are_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands are made known with their options, on servers and in direct messages. (E-17)"""
    async with connected(monkeypatch) as bot:
        commands = {command["name"]: command for command in bot.discord.commands}
        options = {
            name: {option["name"]: option for option in command["options"]}
            for name, command in commands.items()
        }
        assert set(commands) == {"sel_agent_stats", "agents", "run"}
        assert all(command["contexts"] == [0, 1] for command in commands.values())
        assert set(options["sel_agent_stats"]) == {"agent", "sort"}
        sorts = [choice["value"] for choice in options["sel_agent_stats"]["sort"]["choices"]]
        assert sorts == ["name", "calls", "slowest", "errors", "hit rate", "cost"]
        assert {name: o["required"] for name, o in options["run"].items()} == {
            "agent": True,
            "input": True,
            "share": False,
        }


async def test_only_servers_are_listened_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bot asks Discord for no messages: of all events, it gets those of servers alone."""
    async with connected(monkeypatch) as bot:
        assert [told["intents"] for told in bot.discord.identified] == [1]


async def test_names_are_configurable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands have the names of the settings, and answer to them. (E-17)"""
    settings = DiscordSettings(
        users=f"{USER}", stats_command="figures", agents_command="who", run_command="do-it"
    )
    async with connected(monkeypatch, settings) as bot:
        assert {c["name"] for c in bot.discord.commands} == {"figures", "who", "do-it"}
        asked = await bot.discord.ask("do-it", agent="echo", input="x")
        await asked.until()
        assert asked.texts == [f"{FENCE}\nx\n{FENCE}"]


@pytest.mark.parametrize(
    ("agents", "text"),
    [((ONE,), ONE_TEXT), ((("host_exec", 247, 156, 3, 8.7),), OTHER_TEXT)],
)
async def test_statistics_byte_for_byte(
    monkeypatch: pytest.MonkeyPatch, agents: tuple[tuple[str, int, int, int, float], ...], text: str
) -> None:
    """Both samples of the statistics command reach the chat byte for byte. (S1-17)"""
    async with connected(monkeypatch, statistics=lambda: figures(*agents)) as bot:
        asked = await bot.discord.ask("sel_agent_stats", roles=(ROLE,))
        await asked.until()
        assert asked.texts == [text]
        assert not asked.messages[0]["ephemeral"]
        assert quiet(asked)


async def test_statistics_go_over_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Statistics longer than a message are several, each with whole agents. (S1-17, S1-22, X-05)"""
    many = [(f"agent_{n:02}", 2, 1, 0, 1.0) for n in range(50)]
    async with connected(monkeypatch, statistics=lambda: figures(*many)) as bot:
        asked = await bot.discord.ask("sel_agent_stats", roles=(ROLE,))
        await asked.until(3)
        assert len(asked.texts) == 3
        assert all(len(text) <= 2_000 for text in asked.texts)
        blocks = "\n\n".join(asked.texts).split("\n\n")
        assert [block.split("\n")[0] for block in blocks[1:]] == [f"**{n[0]}**" for n in many]
        assert all(len(block.split("\n")) == 5 for block in blocks[1:])


async def test_very_many_agents_are_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """More pages than a channel bears are one, with the whole text as a file. (S1-22)"""
    many = [(f"agent_{n:03}", 2, 1, 0, 1.0) for n in range(200)]
    async with connected(monkeypatch, statistics=lambda: figures(*many)) as bot:
        asked = await bot.discord.ask("sel_agent_stats", roles=(ROLE,))
        [message] = await asked.until()
        [(name, whole)] = message["files"]
        assert message["content"].endswith("\n\nThe rest is in the file.")
        assert name == "statistics.txt"
        assert whole.decode().count("\n\n") == 200


async def test_statistics_of_one_agent_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Statistics can be of one agent, or begin with the agent that has most of something."""
    both = (("a", 5, 1, 0, 9.0), ("b", 9, 1, 3, 1.0))
    async with connected(monkeypatch, statistics=lambda: figures(ONE, *both)) as bot:
        asked = await bot.discord.ask("sel_agent_stats", roles=(ROLE,), agent="host_exec")
        await asked.until()
        assert asked.texts == [ONE_TEXT]
        asked = await bot.discord.ask("sel_agent_stats", roles=(ROLE,), sort="errors")
        await asked.until()
        names = [line for line in asked.texts[0].split("\n") if line.startswith("**")][1:]
        assert names == ["**b**", "**host_exec**", "**a**"]
        asked = await bot.discord.ask("sel_agent_stats", roles=(ROLE,), agent="nobody")
        [message] = await asked.until()
        assert message["ephemeral"]
        assert asked.deleted == 1
        assert "no call of 'nobody' is recorded" in message["content"]


async def test_agents_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What can be run is listed, and a description has no markup of its own."""
    async with connected(monkeypatch) as bot:
        asked = await bot.discord.ask("agents", roles=(ROLE,))
        await asked.until()
        lines = asked.texts[0].split("\n")
        assert lines[0] == "**Agents**"
        assert (
            r"**echo**: Says it \*again\*, and links to \[here\]\(https\://example.org\)." in lines
        )
        assert quiet(asked)


async def test_input_is_passed_on_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent gets the input character for character, in capitals where they were, on behalf of
    the user and the server. (E-17)"""
    text = '  Ls -LA "/Home/Ada" --Flag=ÄÖ  ünïcode 🎉\tTab '
    async with connected(monkeypatch) as bot:
        asked = await bot.discord.ask("run", roles=(ROLE,), agent="echo", input=text)
        await asked.until()
        assert bot.got == [(text, Caller(user=str(USER), tenant=str(GUILD)))]
        assert asked.texts == [f"{FENCE}\n{text}\n{FENCE}"]
        assert asked.messages[0]["ephemeral"]


async def test_a_result_is_announced_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run is announced before it ends, because Discord waits for three seconds only."""
    async with connected(monkeypatch) as bot:
        asked = await bot.discord.ask("run", roles=(ROLE,), agent="slow", input="x")
        assert (await asked.called_back())["type"] == 5
        assert asked.thinking
        bot.held.set()
        await asked.until()
        assert asked.texts == [f"{FENCE}\nat last\n{FENCE}"]


async def test_a_result_can_be_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """A result is for who asked, unless they share it; what went wrong is always theirs alone."""
    async with connected(monkeypatch) as bot:
        for agent, hidden in (("echo", False), ("failing", True)):
            asked = await bot.discord.ask("run", roles=(ROLE,), agent=agent, input="x", share=True)
            [message] = await asked.until()
            assert message["ephemeral"] is hidden
            assert asked.deleted == hidden


async def test_results_cannot_act(monkeypatch: pytest.MonkeyPatch) -> None:
    """A result stays in its block of code and mentions nobody, whatever it contains."""
    text = f"a\n{FENCE}\n@everyone <@1> **bold** `{FENCE}` \u202e\x07 {FENCE}{FENCE}"
    async with connected(monkeypatch) as bot:
        asked = await bot.discord.ask("run", roles=(ROLE,), agent="echo", input=text, share=True)
        [message] = await asked.until()
        assert message["content"].startswith(f"{FENCE}\n")
        assert message["content"].endswith(f"\n{FENCE}")
        assert FENCE not in message["content"][3:-3]
        assert r"\u202e\x07" in message["content"]
        assert quiet(asked)


async def test_long_results_come_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """A result longer than a message is shown in part, and all of it is a file. (S1-22)"""
    text = "\n".join(f"line {n} 🎉" for n in range(500))[:6_000]
    async with connected(monkeypatch) as bot:
        asked = await bot.discord.ask("run", roles=(ROLE,), agent="echo", input=text)
        [message] = await asked.until()
        assert "characters left out; all of it is in the file" in message["content"]
        assert message["content"].startswith(f"{FENCE}\nline 0 ")
        assert message["files"] == [("echo.txt", text.encode())]
        small = await bot.discord.ask(
            "run", roles=(ROLE,), agent="echo", input=text, file_bytes=5_000
        )
        [message] = await small.until()
        assert "it is too long for a file, too" in message["content"]
        assert message["files"] == []


@pytest.mark.parametrize(
    ("agent", "said"),
    [
        ("failing", "❌ failing failed: ValueError: no such thing"),
        ("refusing", "→ Read."),
        ("ech", "→ Did you mean echo?"),
        ("zzzzzz", "→ /agents lists what there is."),
    ],
)
async def test_errors_say_what_to_do(
    monkeypatch: pytest.MonkeyPatch, agent: str, said: str
) -> None:
    """What went wrong is said with the next step, to who asked alone, and without secrets."""
    async with connected(monkeypatch) as bot:
        asked = await bot.discord.ask("run", roles=(ROLE,), agent=agent, input="x")
        [message] = await asked.until()
        assert said in message["content"]
        assert "→" in message["content"]
        assert message["ephemeral"]
        assert "hunter2" not in message["content"]


async def test_secrets_in_results_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the bot's token nor what has the form of a credential is shown in a chat."""
    async with connected(monkeypatch) as bot:
        asked = await bot.discord.ask("run", roles=(ROLE,), agent="leaking", input="x")
        [message] = await asked.until()
        assert "[redacted]" in message["content"]
        assert TOKEN not in message["content"]
        assert PASSWORD not in message["content"]


async def test_a_run_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run ends when its time is over, and who asked is told."""
    settings = DiscordSettings(users=f"{USER}", timeout_s=0.001)
    async with connected(monkeypatch, settings) as bot:
        asked = await bot.discord.ask("run", agent="slow", input="x")
        [message] = await asked.until()
        assert message["content"].startswith(f"{FENCE}\n❌")
        assert "`discord.timeout_s`" in message["content"]


async def test_nobody_may_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without settings nobody may do anything, whatever their roles, and is told so alone."""
    async with connected(monkeypatch, DiscordSettings()) as bot:
        run: dict[str, Any] = {"agent": "echo", "input": "x"}
        nothing: dict[str, Any] = {}
        for name, options in (("sel_agent_stats", nothing), ("agents", nothing), ("run", run)):
            asked = await bot.discord.ask(name, roles=(ROLE, GUILD), **options)
            [message] = await asked.until()
            assert message["ephemeral"]
            assert message["content"].startswith(f"You may not use /{name}.")
            assert str(USER) in message["content"]
        assert bot.got == []


async def test_roles_count_for_their_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """A role opens the commands it is named for, and no other."""
    settings = DiscordSettings(agents_roles=f"{ROLE}", run_roles=f"{ROLE + 1}")
    async with connected(monkeypatch, settings) as bot:
        listed = await bot.discord.ask("agents", roles=(ROLE,))
        assert (await listed.until())[0]["content"].startswith("**Agents**")
        run = await bot.discord.ask("run", roles=(ROLE,), agent="echo", input="x")
        assert (await run.until())[0]["content"].startswith("You may not use /run.")
        run = await bot.discord.ask("run", roles=(ROLE, ROLE + 1), agent="echo", input="x")
        assert (await run.until())[0]["content"].startswith(FENCE)
        assert [text for text, _ in bot.got] == ["x"]


async def test_direct_messages_are_for_named_users(monkeypatch: pytest.MonkeyPatch) -> None:
    """In direct messages only users named in the settings are served, as nobody's tenant."""
    settings = DiscordSettings(users=f"{USER}", run_roles=f"{ROLE}")
    async with connected(monkeypatch, settings) as bot:
        asked = await bot.discord.ask("run", guild=None, user=STRANGER, agent="echo", input="x")
        [message] = await asked.until()
        assert message["content"].startswith("You may not use /run in direct messages.")
        asked = await bot.discord.ask("run", guild=None, user=USER, agent="echo", input="y")
        await asked.until()
        assert bot.got == [("y", Caller(user=str(USER), tenant=None))]


async def test_names_are_suggested_to_those_who_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """While somebody types, agents are suggested, to nobody who may not run them."""
    async with connected(monkeypatch) as bot:
        typed: dict[str, Any] = {"agent": "E", "input": ""}
        asked = await bot.discord.ask("run", roles=(ROLE,), kind=4, focused="agent", **typed)
        told = await asked.called_back()
        names = [choice["value"] for choice in told["data"]["choices"]]
        assert names == ["echo", "host_exec", "leaking", "refusing"]
        asked = await bot.discord.ask("run", kind=4, focused="agent", **typed)
        assert (await asked.called_back())["data"]["choices"] == []


async def test_a_defect_leaves_nobody_waiting(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An unexpected error in the bot is logged, and who asked is told that it happened."""

    def broken() -> Snapshot:
        raise LookupError("figures are gone")

    async with connected(monkeypatch, statistics=broken) as bot:
        asked = await bot.discord.ask("sel_agent_stats", roles=(ROLE,))
        [message] = await asked.until()
        assert message["ephemeral"]
        assert message["content"].startswith("Something went wrong in the bot")
    assert "figures are gone" in caplog.text


async def test_a_command_of_old_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that Discord still knows and the bot does not is refused, even to those who may."""
    async with connected(monkeypatch, DiscordSettings(users=f"{USER}")) as bot:
        asked = await bot.discord.ask("gone")
        [message] = await asked.until()
        assert message["ephemeral"]
        assert message["content"].startswith("This command is not what it was.")


async def test_figures_are_read_once_for_all_who_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who ask while the figures are read get the same ones."""
    loop = asyncio.get_running_loop()
    begun, go = asyncio.Event(), asyncio.Event()
    reads: list[int] = []

    def slow() -> Snapshot:
        reads.append(1)
        loop.call_soon_threadsafe(begun.set)
        asyncio.run_coroutine_threadsafe(go.wait(), loop).result()
        return figures(ONE)

    async with connected(monkeypatch, statistics=slow) as bot:
        first = await bot.discord.ask("sel_agent_stats", roles=(ROLE,))
        await begun.wait()
        second = await bot.discord.ask("sel_agent_stats", roles=(ROLE,))
        await second.called_back()
        go.set()
        for asked in (first, second):
            await asked.until()
            assert asked.texts == [ONE_TEXT]
    assert reads == [1]
