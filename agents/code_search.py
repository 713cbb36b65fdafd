"""Finds text in the source files of a directory."""

import os
from collections.abc import Iterator
from pathlib import Path

from paceline import Effect, Plan, ScopeLevel, file_reads

DESCRIPTION = "Searches source files for a text: `PATTERN [in DIRECTORY]`."
CACHEABLE = True
CAPABILITIES = ["code"]
TIMEOUT = 30

_SUFFIXES = {".py", ".md", ".toml", ".txt", ".c", ".h", ".js", ".ts", ".rs", ".go", ".java", ".sh"}
_SKIPPED = {"node_modules", "__pycache__", "site-packages"}
_LARGEST = 1_000_000
_MATCHES = 50


def plan(query: str, **_context: object) -> Plan:
    """A search depends on every file below its directory: a write to one makes it stale."""
    _, directory = _parse(query)
    return Plan(
        Effect.read(*file_reads(directory)), ttl_s=300, scope=ScopeLevel.GLOBAL, signature="search"
    )


def run(query: str, **_context: object) -> dict[str, object]:
    """The places that contain the text, as `file:line: text`, with counts."""
    pattern, directory = _parse(query)
    matches: list[str] = []
    files = total = 0
    for path in _sources(directory):
        files += 1
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            continue  # gone meanwhile, or not a text after all
        for number, text in enumerate(lines, 1):
            if pattern in text:
                total += 1
                if len(matches) < _MATCHES:
                    matches.append(f"{path.relative_to(directory)}:{number}: {text.strip()[:160]}")
    return {"pattern": pattern, "files": files, "total": total, "matches": matches}


def _parse(query: str) -> tuple[str, Path]:
    pattern, found, directory = query.rpartition(" in ")
    if not found:
        pattern, directory = query, "."
    return pattern.strip(), Path(directory.strip()).expanduser().resolve()


def _sources(directory: Path) -> Iterator[Path]:
    if not directory.is_dir():
        raise NotADirectoryError(f"{directory} is not a directory")
    for root, below, names in os.walk(directory):
        below[:] = sorted(d for d in below if d not in _SKIPPED and not d.startswith("."))
        for name in sorted(names):
            path = Path(root, name)
            if path.suffix in _SUFFIXES and path.is_file() and path.stat().st_size <= _LARGEST:
                yield path
