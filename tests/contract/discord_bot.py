"""The bot, connected to a Discord of the tests' own."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import Any, NamedTuple

import pytest

from paceline.call import Caller, Source
from paceline.errors import Category, CommandFailedError
from paceline.integrations.discord.access import Access
from paceline.integrations.discord.desk import Desk
from paceline.metrics.collector import MetricsCollector
from paceline.metrics.figures import Snapshot
from paceline.redaction import Redactor, Secret
from paceline.runtime import Runtime
from paceline.settings import DiscordSettings
from paceline.testing.virtual_time import VirtualClock
from tests.contract.discord_gateway import ROLE, TOKEN, FakeDiscord

__all__ = ["ALLOWED", "PASSWORD", "Connected", "connected", "figures"]

ALLOWED = DiscordSettings(stats_roles=f"{ROLE}", agents_roles=f"{ROLE}", run_roles=f"{ROLE}")
PASSWORD = "password=canary-hunter2-in-a-result"


class Connected(NamedTuple):
    """What a test has to do with."""

    discord: FakeDiscord
    runtime: Runtime
    stop: asyncio.Event
    got: list[tuple[str, Caller]]
    """What agents were given, and on whose behalf."""
    held: asyncio.Event
    """Lets the agent `slow` end."""
    task: asyncio.Task[None]


@contextlib.asynccontextmanager
async def connected(
    monkeypatch: pytest.MonkeyPatch,
    settings: DiscordSettings = ALLOWED,
    *,
    statistics: Callable[[], Snapshot] | None = None,
    drain_s: float = 5.0,
    ends_well: bool = True,
) -> AsyncGenerator[Connected]:
    """A bot with a few agents, until the end of the block."""
    from paceline.integrations.discord.bot import Bot

    got: list[tuple[str, Caller]] = []
    held = asyncio.Event()
    async with FakeDiscord() as discord, Runtime(agents=[], persist=False) as runtime:
        discord.stand_in(monkeypatch)
        _add_agents(runtime, got, held)
        desk = Desk(runtime, settings, statistics=statistics, redactor=Redactor([Secret(TOKEN)]))
        bot = Bot(desk, Access.of(settings), drain_s=drain_s)
        stop = asyncio.Event()
        task = asyncio.create_task(bot.run(Secret(TOKEN), stop))
        try:
            begun = asyncio.create_task(discord.session())
            await asyncio.wait((begun, task), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                begun.cancel()
                task.result()
            await begun
            yield Connected(discord, runtime, stop, got, held, task)
        finally:
            stop.set()
            held.set()
            await asyncio.wait((task,))
        if ends_well:
            task.result()


def _add_agents(runtime: Runtime, got: list[tuple[str, Caller]], held: asyncio.Event) -> None:
    @runtime.agent(description="Says it *again*, and links to [here](https://example.org).")
    async def echo(query: str, call: Any) -> str:
        got.append((query, call.caller))
        return query

    @runtime.agent()
    async def failing(_query: str) -> str:
        raise ValueError(f"no such thing, {PASSWORD}")

    @runtime.agent()
    async def refusing(_query: str) -> str:
        raise CommandFailedError("`ls` failed", next_step="Read.", category=Category.EXECUTION)

    @runtime.agent()
    async def slow(_query: str) -> str:
        await held.wait()
        return "at last"

    @runtime.agent()
    async def leaking(_query: str) -> str:
        return f"{PASSWORD} and {TOKEN}"

    _ = echo, failing, refusing, slow, leaking


def figures(*agents: tuple[str, int, int, int, float]) -> Snapshot:
    """Of agents with a name, calls, hits, errors and an average in milliseconds."""
    collector = MetricsCollector(clock=VirtualClock())
    for name, calls, hits, errors, avg_ms in agents:
        hit_ns = 40_000
        rest_ns = round((calls * avg_ms * 1e6 - hits * hit_ns) / (calls - hits))
        for number in range(calls):
            hit = number < hits
            collector.add(
                name,
                source=Source.HOT if hit else Source.EXECUTED,
                category=Category.EXECUTION if calls - number <= errors else None,
                queue_ns=0,
                execute_ns=0,
                total_ns=hit_ns if hit else rest_ns,
            )
    return collector.snapshot()
