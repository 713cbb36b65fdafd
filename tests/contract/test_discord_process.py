"""`paceline discord`, in a process of its own."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Final

import pytest

from tests.contract.discord_gateway import ROLE, TOKEN, USER, FakeDiscord
from tests.e2e.command_line import process

_LAUNCH: Final = """
import sys, discord, yarl
discord.http.Route.BASE = sys.argv[1]
discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(sys.argv[2])
from paceline.cli.app import run
sys.exit(run(sys.argv[3:]))
"""
_PATIENCE_S: Final = 60.0
_ECHO: Final = "CACHEABLE = True\ndef run(query):\n    print('from the agent')\n    return query\n"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with an agent and settings that allow one user everything."""
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "echo.py").write_text(_ECHO)
    (tmp_path / "paceline.toml").write_text(
        f'[discord]\nusers = "{USER}"\n[hostexec]\nmode = "off"\n'
    )
    for name in [name for name in os.environ if name.startswith("PACELINE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PACELINE_HOME", str(tmp_path / ".paceline"))
    return tmp_path


@contextlib.asynccontextmanager
async def started(
    discord: FakeDiscord, place: Path, *arguments: str, token: str = TOKEN
) -> AsyncGenerator[asyncio.subprocess.Process]:
    """The command, surely ended after the block."""
    bot = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", _LAUNCH, discord.base, discord.gateway, *arguments, "discord"),
        cwd=place,
        env=os.environ | {"PACELINE_DISCORD_TOKEN": token},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield bot
    finally:
        with contextlib.suppress(ProcessLookupError):
            bot.kill()
        await bot.wait()


async def ended(bot: asyncio.subprocess.Process) -> tuple[int | None, str, str]:
    """Its exit code and what it wrote."""
    async with asyncio.timeout(_PATIENCE_S):
        out, err = await bot.communicate()
    return bot.returncode, out.decode(), err.decode()


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
async def test_it_serves_until_it_is_stopped(place: Path, stop: signal.Signals) -> None:
    """The command serves what is in this place until Ctrl-C or SIGTERM, and ends well; the
    statistics are those of `paceline stats`, byte for byte. (S1-17)"""
    assert process(place, "run", "echo", "before").code == 0
    async with FakeDiscord() as discord, started(discord, place) as bot:
        await discord.session()
        figures = await discord.ask("sel_agent_stats", user=USER)
        await figures.until()
        assert figures.texts[0] + "\n" == process(place, "stats").out
        asked = await discord.ask("run", user=USER, agent="echo", input="Hello")
        await asked.until()
        assert asked.texts == ["```\nHello\n```"]
        bot.send_signal(stop)
        code, out, err = await ended(bot)
    assert (code, out) == (0, "")
    assert "connected to Discord as pacer" in err
    assert "nobody may use" not in err
    assert "Traceback" not in err


async def test_the_token_is_nowhere(place: Path) -> None:
    """The bot's token is neither in what the command writes nor in any of its files, also where
    somebody gives it to an agent."""
    async with FakeDiscord() as discord, started(discord, place) as bot:
        await discord.session()
        asked = await discord.ask("run", user=USER, agent="echo", input=f"{TOKEN} x")
        await asked.until()
        assert TOKEN not in asked.texts[0]
        await discord.ask("run", user=USER, agent=TOKEN, input="x")
        bot.send_signal(signal.SIGTERM)
        _, out, err = await ended(bot)
    kept = [file for file in place.rglob("*") if file.is_file()]
    assert any(file.name.startswith("history") for file in kept)
    assert TOKEN not in out + err
    assert [f.name for f in kept if "history" in f.name and TOKEN.encode() in f.read_bytes()] == []


async def test_a_wrong_token_is_an_exit_code(place: Path) -> None:
    """With a token that Discord does not accept the command ends with 2 and the next step."""
    wrong = "MTAw.wrong-canary-Qq9.that-nobody-may-see"
    async with FakeDiscord() as discord, started(discord, place, token=wrong) as bot:
        code, out, err = await ended(bot)
    assert (code, out) == (2, "")
    assert "error: Discord does not accept the token in PACELINE_DISCORD_TOKEN" in err
    assert "next: Take a new one from https://discord.com/developers/applications" in err
    assert wrong not in err


def test_without_a_token_it_says_how_to_get_one(place: Path) -> None:
    """Without a token the command ends with 2, and says where to get one and where to put it."""
    said = process(place, "discord")
    assert (said.code, said.out) == (2, "")
    assert "PACELINE_DISCORD_TOKEN is not set" in said.err
    assert "next: Make a bot at https://discord.com/developers/applications" in said.err


async def test_it_says_when_nobody_may(place: Path) -> None:
    """Where the settings allow nothing to anybody, the command says so and what to set."""
    (place / "none.toml").write_text('[hostexec]\nmode = "off"\n')
    async with FakeDiscord() as discord, started(discord, place, "--config", "none.toml") as bot:
        await discord.session()
        asked = await discord.ask("agents", user=USER, roles=(ROLE,))
        [message] = await asked.until()
        assert message["content"].startswith("You may not use /agents.")
        bot.send_signal(signal.SIGINT)
        code, _, err = await ended(bot)
    assert code == 0
    assert "nobody may use the commands yet" in err
    assert "discord.users" in err


def test_names_must_differ(place: Path) -> None:
    """Two commands of the same name are an error before anything starts."""
    (place / "paceline.toml").write_text('[discord]\nrun_command = "agents"\n')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PACELINE_DISCORD_TOKEN", TOKEN)
        said = process(place, "discord")
    assert said.code == 2
    assert "two commands of the Discord bot have the same name" in said.err
