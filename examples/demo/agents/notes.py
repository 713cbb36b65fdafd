"""Appends a line to a text file: a write, which makes searches of that file's directory stale."""

from pathlib import Path

from paceline import Effect, Plan, file_writes

DESCRIPTION = "Appends a line to a file: `FILE: LINE`."
MAX_CONCURRENCY = 1
TIMEOUT = 5


def plan(query: str, **_context: object) -> Plan:
    """What a call changes is known before it runs: its file."""
    return Plan(Effect.write(*file_writes(_parse(query)[0])), signature="append")


def run(query: str, **_context: object) -> str:
    """Appends, and says where."""
    path, line = _parse(query)
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")
    return f"one line more in {path.name}"


def _parse(query: str) -> tuple[Path, str]:
    path, found, line = query.partition(":")
    if not found:
        raise ValueError(f"not FILE: LINE: {query}")
    return Path(path.strip()).resolve(), line.strip()
