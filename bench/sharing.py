"""How often a result is computed that several processes ask for at once, and where it is found.

Four processes ask for one result that takes 0.3 s: of one state directory, and of four with a
cold tier in common. Then one process asks twice for what another left in the cold tier.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import msgspec

from tests.redis_server import RedisServer

__all__ = ["main", "run"]

_PROCESSES: Final = 4
_AGENT: Final = """
import pathlib, time
EFFECT = "pure"
CACHE_TTL = 600
SCOPE = "global"

def run(query):
    with pathlib.Path(__file__).with_name("runs.txt").open("a") as runs:
        runs.write(query + "\\n")
    time.sleep(0.3)
    return query
"""
_ASK: Final = """
import asyncio, os, sys
from paceline import Runtime
from paceline.config import load

async def main(agents, home, query, times):
    async with Runtime(load(environ=os.environ), agents=[agents], home=home) as runtime:
        sys.stdout.write("ready\\n")
        sys.stdout.flush()
        sys.stdin.readline()
        for _ in range(int(times)):
            outcome = await runtime.run("slow", query)
            sys.stdout.write(f"{outcome.source}\\n")

asyncio.run(main(*sys.argv[1:]))
"""
_QUIET: Final = {
    "PACELINE_AGENTS_WATCH": "false",
    "PACELINE_HOSTEXEC_MODE": "off",
    "PACELINE_HISTORY_ENABLED": "false",
}


def run(rounds: int = 3) -> dict[str, object]:
    """The most computations that were seen in a round, by what the processes share; and from
    where a process got what another one computed, asked twice."""
    most = {"disk": 0, "redis": 0}
    found: list[str] = []
    with RedisServer() as server, tempfile.TemporaryDirectory() as directory:
        agents = Path(directory) / "agents"
        agents.mkdir()
        (agents / "slow.py").write_text(_AGENT)
        shared = {"PACELINE_CACHE_SHARED_URL": server.url, "PACELINE_CACHE_SHARED_BUDGET_S": "1"}
        for number in range(rounds):
            one = [Path(directory) / f"one{number}"] * _PROCESSES
            own = [Path(directory) / f"own{number}-{each}" for each in range(_PROCESSES)]
            for name, homes, environ in (("disk", one, {}), ("redis", own, shared)):
                query = f"{name} {number}"
                _ask(agents, homes, query, 1, environ)
                runs = (agents / "runs.txt").read_text().splitlines().count(query)
                most[name] = max(most[name], runs)
            late = Path(directory) / f"late{number}"
            (found,) = _ask(agents, [late], f"redis {number}", 2, shared)
    return {"rounds": rounds, "processes": _PROCESSES, "computations": most, "found": found}


def _ask(
    agents: Path, homes: list[Path], query: str, times: int, environ: dict[str, str]
) -> list[list[str]]:
    """The sources that each of the processes named, which all ask at once."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _ASK, str(agents), str(home), query, str(times)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,  # of one that is interrupted, nobody wants it
            text=True,
            env={"PATH": os.environ["PATH"], **_QUIET, **environ},
        )
        for home in homes
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        return [process.communicate(timeout=60)[0].split() for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def main() -> None:
    """Prints the figures."""
    print(msgspec.json.format(msgspec.json.encode(run())).decode())


if __name__ == "__main__":
    main()
