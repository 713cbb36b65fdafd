"""Some 300 calls of several users, with Paceline and without."""

import asyncio
import contextlib
import logging
import os
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import msgspec

from examples.demo.catalog import packages, register, serving
from examples.demo.screen import Screen
from examples.demo.workload import Step, steps
from paceline import Outcome, Runtime, Settings
from paceline.errors import PacelineError
from paceline.hostexec.sandbox.workspace import Workspace
from paceline.settings import HostExecSettings

CALLS = 300
CONCURRENCY = 8
SEED = 7

__all__ = ["demo", "main"]

ROOT = Path(__file__).parents[2]
STATE = ROOT / ".paceline"


class Pass(msgspec.Struct):
    """One pass over the workload."""

    seconds: float
    outcomes: list[tuple[Step, Outcome]]
    refused: list[tuple[Step, PacelineError]]
    """Calls that could not be made at all, such as of an agent that never loaded."""


async def run_all(
    runtime: Runtime, plan: list[Step], *, use_cache: bool, advance: Callable[[], None]
) -> Pass:
    """Makes the calls in order, eight at a time."""
    done = Pass(0.0, [], [])
    waiting = iter(plan)

    async def worker() -> None:
        for step in waiting:
            try:
                outcome = await runtime.run(
                    step.agent,
                    step.query,
                    user=step.user,
                    timeout=step.timeout_s,
                    use_cache=use_cache,
                )
                done.outcomes.append((step, outcome))
            except PacelineError as exc:
                done.refused.append((step, exc))
            advance()

    began = time.perf_counter()
    async with asyncio.TaskGroup() as workers:
        for _ in range(CONCURRENCY):
            workers.create_task(worker())
    done.seconds = time.perf_counter() - began
    return done


@contextlib.asynccontextmanager
async def opened(url: str, *, persist: bool) -> AsyncIterator[Runtime]:
    """A runtime with the example agents and those of the demo."""
    dirs = [ROOT / "agents", ROOT / "examples" / "demo" / "agents"]
    runtime = Runtime(Settings(), agents=dirs, home=STATE, persist=persist)
    async with aiohttp.ClientSession() as session, runtime:
        register(runtime, url, session)
        yield runtime


def closed() -> bool:
    """Whether the user that commands run as cannot enter the project: as root in a directory of
    root's own, say."""
    user = HostExecSettings().run_as
    return os.geteuid() == 0 and Workspace(ROOT).closed_at(user, user) is not None


def fresh_workspace() -> Path:
    """A copy of the source to search in; the notes the demo writes go there, too."""
    workspace = STATE / "demo"
    shutil.copytree(ROOT / "src", workspace / "src", dirs_exist_ok=True)
    (workspace / "notes.md").write_text("# Notes\n", encoding="utf-8")
    return workspace


async def demo(screen: Screen) -> int:
    """Both passes, and what they show. Returns the exit code."""
    again = (STATE / "cache.db").exists()
    rng = random.Random(SEED)  # noqa: S311 (the same calls every time)
    shut = closed()
    plan = steps(CALLS, fresh_workspace(), packages()[:12], rng, closed=shut)
    screen.start(len(plan), CONCURRENCY, Counter(step.agent for step in plan), again=again)
    async with serving() as url:
        async with opened(url, persist=True) as runtime:
            with screen.progress("with Paceline", len(plan)) as advance:
                paced = await run_all(runtime, plan, use_cache=True, advance=advance)
            statistics, notices = runtime.metrics.snapshot(), list(runtime.notices)
        async with opened(url, persist=False) as runtime:
            with screen.progress("without a cache", len(plan)) as advance:
                bare = await run_all(runtime, plan, use_cache=False, advance=advance)
    screen.statistics(statistics)
    failures = [(step, outcome.error) for step, outcome in paced.outcomes if outcome.error]
    failures += paced.refused
    sources = Counter(outcome.source for _, outcome in paced.outcomes if outcome.ok)
    screen.sources(sources, without=len(failures))
    screen.saved(paced.seconds, bare.seconds, _executed(paced), _executed(bare))
    screen.failures(failures)
    if shut:
        notices.append(f"{ROOT} is closed to the user that host commands run as: none look in it")
    screen.notices(notices)
    screen.next_steps(again=again)
    return 0


def _executed(done: Pass) -> int:
    return sum(1 for _, outcome in done.outcomes if outcome.attempts)


def main() -> int:
    """Runs the demo from the top of the repository, wherever it was started."""
    os.chdir(ROOT)
    logging.getLogger("paceline").addHandler(logging.NullHandler())  # the screen shows it
    STATE.mkdir(mode=0o700, exist_ok=True)
    return asyncio.run(demo(Screen(sys.stdout)))
