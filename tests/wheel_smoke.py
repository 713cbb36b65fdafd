"""Uses an installed Paceline as a user would: `python -I wheel_smoke.py TREE WHEEL`.

Run by wheel.sh in an empty directory, with the environment that the wheel was installed in.
Ends with 0 if everything works, else with what does not.
"""

import asyncio
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import paceline
from paceline import Caller, Effect, Runtime, Settings, Source

PROGRAM = Path(sys.prefix) / "bin" / "paceline"
DATA = ("paceline/py.typed", "paceline/hostexec/policy/default.toml")


def main(tree: Path, wheel: Path) -> None:
    """Runs all checks, the cheap ones first."""
    check_contents(wheel)
    check_place(tree)
    check_commands(wheel.name.split("-")[1])
    asyncio.run(check_runtime())
    left = [path.name for path in Path.cwd().iterdir()]
    assert left == [], f"left behind in the working directory: {left}"


def check_contents(wheel: Path) -> None:
    """The wheel holds the package with its data, and nothing else."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    missing = [name for name in DATA if name not in names]
    assert not missing, f"not in the wheel: {missing}"
    foreign = [n for n in names if not n.startswith("paceline/") and ".dist-info/" not in n]
    assert not foreign, f"has no place in the wheel: {foreign}"


def check_place(tree: Path) -> None:
    """What is imported is what was installed, not the tree it was built from."""
    place = Path(paceline.__file__)
    assert place.is_relative_to(sys.prefix), f"imported from {place}"
    assert not place.is_relative_to(tree), f"imported from the tree: {place}"


def check_commands(version: str) -> None:
    """The command is there, knows its version and its agents, and keeps results."""
    assert version in command("--version")
    assert "host_exec" in command("agents")
    first, second = (json.loads(command("run", "host_exec", "uname -a", "--json")) for _ in "12")
    assert first["error"] is None, first
    assert first["source"] == Source.EXECUTED, first
    assert second["source"] == Source.WARM, second
    assert second["value"] == first["value"], (first, second)


def command(*arguments: str) -> str:
    """What `paceline ...` prints; it has to succeed."""
    done = subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"paceline {' '.join(arguments)}: {done.stdout}{done.stderr}"
    return done.stdout


async def check_runtime() -> None:
    """A decorated function runs through the runtime, and a second time from memory."""
    runs: list[str] = []
    runtime = Runtime(Settings(), agents=[], persist=False)

    @runtime.agent(effect=Effect.pure())
    async def shout(query: str, **_: Any) -> str:
        runs.append(query)
        return query.upper()

    async with runtime:
        ada = Caller(user="ada")
        outcomes = [await runtime.run("shout", "hello", caller=ada) for _ in "12"]
    assert [outcome.unwrap() for outcome in outcomes] == ["HELLO", "HELLO"], outcomes
    assert [outcome.source for outcome in outcomes] == [Source.EXECUTED, Source.HOT], outcomes
    assert runs == ["hello"], runs


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
