"""The calls of the demo: several users who ask much the same, as people do."""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

__all__ = ["Step", "steps"]


class Step(NamedTuple):
    """One call to make."""

    user: str
    agent: str
    query: str
    timeout_s: float | None = None


_USERS = ("ada", "grace", "linus", "margaret")
_SYSTEM = ("uname -a", "df -h", "free -m", "ps aux", "uptime", "cat /etc/os-release")
_IN_WORKSPACE = (
    "git log --oneline",
    "git status",
    "ls -la",
    "wc -l README.md",
    "grep -rn CallPath src",
    "find src -name '*.py'",
)
_FIGURES = ("cpu", "memory", "disk", "processes", "os", "memory disk")
_WORDS = (
    "class ", "def run", "import asyncio", "Effect", "deadline", "raise ", "Protocol", "frozen=True",
    "yield", "timeout",
)  # fmt: skip


def steps(
    count: int, workspace: Path, packages: Sequence[str], rng: random.Random, *, closed: bool
) -> list[Step]:
    """`count` calls in order: reads with the skew of real requests, a few writes among them,
    one command the policy refuses, one that runs out of time, one agent that never loaded.

    `closed`: commands cannot see the project's files, so they ask for the system's only.
    """
    pools = (
        ("host_exec", _SYSTEM if closed else (*_SYSTEM, *_IN_WORKSPACE), 4),
        ("code_search", [f"{word} in {workspace}" for word in _WORDS], 3),
        ("system_info", _FIGURES, 2),
        ("catalog", packages, 2),
    )
    agents = [agent for agent, _, weight in pools for _ in range(weight)]
    queries = {agent: pool for agent, pool, _ in pools}
    special = dict(_special(count, workspace, slow="top -b -n 1" if closed else "grep -rc e ."))
    planned: list[Step] = []
    for number in range(count):
        agent = rng.choice(agents)
        query = queries[agent][_skewed(len(queries[agent]), rng)]
        planned.append(special.get(number) or Step(rng.choice(_USERS), agent, query))
    return planned


def _special(count: int, workspace: Path, *, slow: str) -> Iterator[tuple[int, Step]]:
    notes = workspace / "notes.md"
    for turn, part in enumerate((0.3, 0.6, 0.85), 1):
        yield int(count * part), Step("grace", "notes", f"{notes}: reviewed, turn {turn}")
    yield int(count * 0.2), Step("linus", "host_exec", "rm -rf /")
    yield int(count * 0.4), Step("ada", "host_exec", slow, timeout_s=0.02)
    yield int(count * 0.5), Step("margaret", "broken", "hello")


def _skewed(size: int, rng: random.Random) -> int:
    """An index, where the n-th is asked for about 1/n as often as the first (Zipf's law)."""
    return rng.choices(range(size), [1 / (n + 1) for n in range(size)])[0]
