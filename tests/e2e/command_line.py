"""What the tests of the command line share: a place to work in, and ways to run commands there."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ECHO = "CACHEABLE = True\ndef run(query): return query.upper()\n"
FAILING = "def run(query): raise ValueError('no such thing')\n"
SLOW = "import asyncio\nasync def run(query): await asyncio.Event().wait()\n"


class Said(NamedTuple):
    """What a command printed and returned."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        return json.loads(self.out)


Cli = Callable[..., Said]


def furnish(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, code in (("echo", ECHO), ("failing", FAILING), ("slow", SLOW)):
        (work / "agents").mkdir(parents=True, exist_ok=True)
        (work / "agents" / f"{name}.py").write_text(code)
    monkeypatch.chdir(work)
    for name in [name for name in os.environ if name.startswith("PACELINE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PACELINE_HOME", str(work / ".paceline"))


def process(place: Path, *arguments: str) -> Said:
    """Runs a command line in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "paceline", *arguments],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Said(done.returncode, done.stdout, done.stderr)
