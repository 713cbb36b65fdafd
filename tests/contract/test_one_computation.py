"""One computation for all: processes that ask for one result at once."""

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from paceline import Effect, Runtime, ScopeLevel, Source
from paceline.config import load
from tests.redis_server import RedisServer

AGENT = '''
"""Waits at a gate, and leaves a mark for every time it ran."""
import os
import sys
EFFECT = "pure"
CACHE_TTL = 600
SCOPE = "global"

def run(query):
    with open(os.environ["MARKS"], "a") as marks:
        marks.write("ran\\n")
    return sys.stdin.readline().strip()  # comes when the test opens the gate
'''
ASK = """
import asyncio, os, pathlib, sys
from paceline import Runtime
from paceline.config import load

async def main():
    settings = load(environ=os.environ)
    async with Runtime(settings, agents=[sys.argv[1]], home=sys.argv[2]) as runtime:
        sys.stdout.write("asking\\n")
        sys.stdout.flush()
        outcome = await runtime.run("slow", "q")
        sys.stdout.write(f"{outcome.source} {outcome.unwrap()}\\n")

asyncio.run(main())
"""
QUIET = {
    "PACELINE_AGENTS_WATCH": "false",
    "PACELINE_HOSTEXEC_MODE": "off",
    "PACELINE_HISTORY_ENABLED": "false",
}


class Askers:
    """Processes that ask for one result, each with its own runtime."""

    def __init__(self, directory: Path, homes: list[Path], environ: dict[str, str]) -> None:
        agents = directory / "agents"
        agents.mkdir()
        (agents / "slow.py").write_text(AGENT)
        self.marks = directory / "marks"
        known = {"PATH": os.environ["PATH"], **QUIET, **environ}
        known |= {"MARKS": str(self.marks)}
        self.processes = [
            subprocess.Popen(
                [sys.executable, "-c", ASK, str(agents), str(home)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=known,
            )
            for home in homes
        ]

    def all_ask(self) -> None:
        for process in self.processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "asking\n"

    def open_gate(self, value: str) -> None:
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write(f"{value}\n")
            process.stdin.flush()

    def answers(self) -> list[str]:
        return sorted(process.communicate(timeout=60)[0].strip() for process in self.processes)


@contextmanager
def askers(
    directory: Path, homes: list[Path], environ: dict[str, str] | None = None
) -> Iterator[Askers]:
    group = Askers(directory, homes, environ or {})
    try:
        yield group
    finally:
        for process in group.processes:
            process.kill()
            process.communicate()


def test_four_processes_compute_once(tmp_path: Path) -> None:
    """Of four processes of one state directory that ask for one result at once, one computes it
    and the others get it from the file. (S0-41, S1-09, T5)"""
    with askers(tmp_path, [tmp_path / "home"] * 4) as group:
        group.all_ask()
        group.open_gate("42")
        answers = group.answers()
    assert answers == ["executed 42", "warm 42", "warm 42", "warm 42"]
    assert group.marks.read_text() == "ran\n"


def test_without_leases_each_computes(tmp_path: Path) -> None:
    """The test above fails where nobody waits for another. (S0-41)"""
    with askers(tmp_path, [tmp_path / "home"] * 4, {"PACELINE_CACHE_LEASE_WAIT_S": "0"}) as group:
        group.all_ask()
        while not group.marks.exists() or group.marks.read_text().count("ran") < 4:
            assert all(process.poll() is None for process in group.processes)
        group.open_gate("42")
        assert group.answers() == ["executed 42"] * 4


def test_machines_that_share_a_tier_compute_once(tmp_path: Path, server: RedisServer) -> None:
    """Of four processes with state directories of their own and a common cold tier, one computes a
    result and the others get it from there. (S1-51, S0-41)"""
    homes = [tmp_path / f"home{number}" for number in range(4)]
    environ = {"PACELINE_CACHE_SHARED_URL": server.url, "PACELINE_CACHE_SHARED_BUDGET_S": "1"}
    with askers(tmp_path, homes, environ) as group:
        group.all_ask()
        group.open_gate("42")
        answers = group.answers()
    assert answers == ["cold 42", "cold 42", "cold 42", "executed 42"]
    assert group.marks.read_text() == "ran\n"


def test_a_write_elsewhere_is_seen_through_the_cold_tier(
    tmp_path: Path, server: RedisServer
) -> None:
    """A write on one machine makes stale what another one holds in memory, on disk and in the cold
    tier. (S1-53, S0-78)"""

    async def main() -> None:
        overrides: dict[str, dict[str, object]] = {
            "agents": {"watch": False},
            "hostexec": {"mode": "off"},
            "history": {"enabled": False},
            "cache": {"shared_url": server.url, "shared_budget_s": 1},
        }
        state = {"value": 1}
        async with contextlib.AsyncExitStack() as stack:
            machines: list[Runtime] = []
            for number in range(2):
                runtime = Runtime(load(overrides=overrides), agents=[], home=tmp_path / str(number))
                everyone = ScopeLevel.GLOBAL

                @runtime.agent("read", effect=Effect.read("v"), scope=everyone, version="1")
                async def read(query: str) -> int:
                    return state["value"]

                @runtime.agent("write", effect=Effect.write("v"))
                async def write(query: str) -> None:
                    state["value"] = int(query)

                machines.append(await stack.enter_async_context(runtime))
            one, two = machines
            assert (await one.run("read", "q")).source is Source.EXECUTED
            async with asyncio.timeout(30):
                while (await two.run("read", "q")).source is not Source.HOT:  # noqa: ASYNC110
                    await asyncio.sleep(0)
            await one.run("write", "2")
            async with asyncio.timeout(30):
                while (await two.run("read", "q")).value != 2:  # noqa: ASYNC110
                    await asyncio.sleep(0)
            assert (await one.run("read", "q")).value == 2

    asyncio.run(main())
