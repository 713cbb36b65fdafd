"""The life of the bot: connections that are lost, tokens that are wrong, ends that are clean."""

import asyncio
import logging

import pytest

from paceline.errors import Category, ConfigError, PacelineError
from paceline.integrations.discord.access import Access
from paceline.integrations.discord.logs import redacted_logs
from paceline.redaction import Redactor, Secret
from tests.contract.discord_bot import ALLOWED, Connected, connected
from tests.contract.discord_gateway import ROLE, TOKEN, FakeDiscord

# discord.py imports a module that Python 3.13 no longer has.
pytestmark = pytest.mark.filterwarnings("ignore:'audioop' is deprecated:DeprecationWarning")

WRONG = "MTAw.wrong-canary-Qq9.that-nobody-may-see"


class NoPause:
    """Stands for discord.py's growing pauses between attempts."""

    def delay(self) -> float:
        return 0.0


async def no_pause(*_: object, **__: object) -> None:
    """Stands for discord.py's five seconds before a further session is begun."""


async def answers(bot: Connected) -> bool:
    asked = await bot.discord.ask("run", roles=(ROLE,), agent="echo", input="still here")
    await asked.until()
    return asked.texts == ["```\nstill here\n```"]


@pytest.mark.parametrize("code", [1000, 1001, 4000, 4009])
async def test_a_closed_gateway_is_found_again(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """When the gateway ends the connection, the session is resumed and commands are answered."""
    async with connected(monkeypatch) as bot:
        await bot.discord.drop(code)
        await bot.discord.session(2)
        assert [told["session_id"] for told in bot.discord.resumed] == ["session-canary"]
        assert await answers(bot)


async def test_a_broken_network_is_survived(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a connection broke and the gateway was away for a while, commands are answered."""
    monkeypatch.setattr("discord.client.ExponentialBackoff", NoPause)
    async with connected(monkeypatch) as bot:
        bot.discord.refused_connections = 3
        bot.discord.cut()
        await bot.discord.session(2)
        assert bot.discord.attempts == 5
        assert await answers(bot)


async def test_a_forgotten_session_is_begun_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Discord has forgotten the session, another one is begun."""
    monkeypatch.setattr("discord.Client.before_identify_hook", no_pause)
    async with connected(monkeypatch) as bot:
        bot.discord.forget_sessions = True
        await bot.discord.drop()
        await bot.discord.session(2)
        assert len(bot.discord.identified) == 2
        assert await answers(bot)


async def test_an_answer_survives_the_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs while the gateway is lost is answered when it is done."""
    async with connected(monkeypatch) as bot:
        asked = await bot.discord.ask("run", roles=(ROLE,), agent="slow", input="x")
        await asked.called_back()
        await bot.discord.drop()
        await bot.discord.session(2)
        bot.held.set()
        await asked.until()
        assert asked.texts == ["```\nat last\n```"]


async def test_a_late_command_harms_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A command that Discord does not wait for any more is not run, and the next one is answered."""
    async with connected(monkeypatch) as bot:
        bot.discord.broken_answers = 1
        await bot.discord.ask("run", roles=(ROLE,), agent="echo", input="late")
        assert await answers(bot)
        assert [text for text, _ in bot.got] == ["still here"]
    assert "an answer could not be given" in caplog.text


async def test_a_wrong_token_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A token that Discord does not accept is an error that says what to do and does not show it."""
    from paceline.integrations.discord.bot import Bot
    from paceline.integrations.discord.desk import Desk
    from paceline.runtime import Runtime

    async with FakeDiscord() as discord, Runtime(agents=[], persist=False) as runtime:
        discord.stand_in(monkeypatch)
        bot = Bot(Desk(runtime, ALLOWED), Access.of(ALLOWED))
        with pytest.raises(ConfigError, match="does not accept the token") as caught:
            await bot.run(Secret(WRONG), asyncio.Event())
    error = caught.value
    assert error.category is Category.AUTHENTICATION
    assert "PACELINE_DISCORD_TOKEN" in error.next_step
    assert "Reset Token" in error.next_step
    assert WRONG not in f"{error!r} {error} {error.__cause__!r} {error.__cause__} {vars(bot)!r}"


async def test_a_token_that_is_taken_back_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A token that is no longer accepted while the bot runs is an error, not an endless attempt."""
    async with connected(monkeypatch, ends_well=False) as bot:
        await bot.discord.drop(4004)
        with pytest.raises(PacelineError, match="does not accept the token any more") as caught:
            await bot.task
    assert "Reset Token" in caught.value.next_step


async def test_without_discord_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Discord cannot be reached in the beginning, the error says so."""
    from paceline.integrations.discord.bot import Bot
    from paceline.integrations.discord.desk import Desk
    from paceline.runtime import Runtime

    async with Runtime(agents=[], persist=False) as runtime:
        async with FakeDiscord() as discord:
            discord.stand_in(monkeypatch)
        bot = Bot(Desk(runtime, ALLOWED), Access.of(ALLOWED))
        with pytest.raises(PacelineError, match="Discord cannot be reached") as caught:
            await bot.run(Secret(TOKEN), asyncio.Event())
    assert caught.value.category is Category.NETWORK


async def test_stopping_waits_for_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for an answer when the bot is to stop still gets it; who comes then is refused."""
    async with connected(monkeypatch) as bot:
        waiting = await bot.discord.ask("run", roles=(ROLE,), agent="slow", input="x")
        await waiting.called_back()
        bot.stop.set()
        await asyncio.sleep(0)
        late = await bot.discord.ask("run", roles=(ROLE,), agent="echo", input="y")
        [refused] = await late.until()
        assert refused["content"].startswith("The bot is stopping.")
        bot.held.set()
        await waiting.until()
        assert waiting.texts == ["```\nat last\n```"]
        await bot.task


async def test_stopping_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who would have to wait too long when the bot is to stop is told so."""
    async with connected(monkeypatch, drain_s=0.0) as bot:
        waiting = await bot.discord.ask("run", roles=(ROLE,), agent="slow", input="x")
        await waiting.called_back()
        bot.stop.set()
        await bot.task
        assert waiting.texts == ["The bot is stopping. Ask again in a little while."]


async def test_stopping_while_there_is_no_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bot stops at once also while it pauses between attempts to connect."""
    pausing = asyncio.Event()

    class LongPause:
        def delay(self) -> float:
            pausing.set()
            return 3_600.0

    monkeypatch.setattr("discord.client.ExponentialBackoff", LongPause)
    async with connected(monkeypatch) as bot:
        bot.discord.refused_connections = 1
        await bot.discord.drop()
        await pausing.wait()
        bot.stop.set()
        await bot.task
        assert bot.discord.attempts == 2


async def test_nothing_secret_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the bot's token nor those of commands nor credentials are in what is logged, also
    where something goes wrong."""
    said: list[str] = []
    log = logging.getLogger("discord.http")
    with redacted_logs(Redactor([Secret(TOKEN)]), said.append):
        async with connected(monkeypatch) as bot:
            bot.discord.broken_answers = 2
            await bot.discord.ask("run", roles=(ROLE,), agent="leaking", input="x")
            assert not await answers_once_more(bot)
            log.debug("IDENTIFY %s", TOKEN)
            log.warning("POST /webhooks/100/canary-of-a-command/messages with Bot %s", TOKEN)
            log.error("it broke", exc_info=RuntimeError(f"session ended\n{TOKEN}"))
    text = "\n".join(said)
    assert "WARNING: an answer could not be given" in text
    assert "/webhooks/100/[redacted]/messages with Bot [redacted]" in text
    assert "ERROR: it broke: RuntimeError: session ended" in text
    assert all("\n" not in line for line in said)
    assert "canary" not in text
    assert "PyNaCl" not in text
    assert logging.getLogger("discord").propagate


async def answers_once_more(bot: Connected) -> bool:
    """A command whose answer Discord refuses, then one that it takes."""
    await bot.discord.ask("agents", roles=(ROLE,))
    assert await answers(bot)
    return bool(bot.discord.broken_answers)
