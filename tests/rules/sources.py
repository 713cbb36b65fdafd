"""What the house rules look at: texts by path, and the names that code uses."""

import ast
import functools
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

__all__ = ["ROOT", "Sources", "dotted_uses", "parsed", "python", "tracked"]

ROOT = Path(__file__).parents[2]
Sources = Mapping[str, str]
"""Text of files by path from the root of the tree, with `/` between parts."""

_MADE = {
    ".git",
    ".venv",
    ".venv-peers",
    ".venv-peers-router",
    ".hypothesis",
    "__pycache__",
    "dist",
    "build",
}


def python(folder: str) -> dict[str, str]:
    """The Python files below a folder."""
    return {
        path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted((ROOT / folder).rglob("*.py"))
    }


def tracked() -> dict[str, str]:
    """Every text file that is, or is about to be, under version control."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = ""
    if shutil.which("git"):
        listed = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=False
        ).stdout
    names = listed.split("\0") if listed else _walk()
    texts: dict[str, str] = {}
    for name in names:
        path = ROOT / name
        if name and path.is_file():
            data = path.read_bytes()
            if b"\0" not in data:
                texts[name] = data.decode("utf-8", "replace")
    return texts


def _walk() -> Iterator[str]:
    """The files of a tree without version control, such as an unpacked source archive."""
    for path in ROOT.rglob("*"):
        parts = path.relative_to(ROOT).parts
        if not any(part in _MADE or part.endswith("_cache") for part in parts):
            yield "/".join(parts)


def parsed(sources: Sources) -> Iterator[tuple[str, ast.Module]]:
    """The syntax trees of Python files."""
    for path, text in sources.items():
        yield path, _tree(path, text)


@functools.cache
def _tree(path: str, text: str) -> ast.Module:
    """Rules only look at it, so all of them can have the same one."""
    return ast.parse(text, path)


def dotted_uses(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Every name and attribute used, written out as imported: `(line, "time.monotonic")`.

    Aliases are followed, so `from time import monotonic as now; now()` is `time.monotonic`;
    the import itself counts as a use.
    """
    aliases: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                top = name.name.partition(".")[0]
                aliases[name.asname or top] = name.name if name.asname else top
                yield node.lineno, name.name
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.lineno, node.module
            for name in node.names:
                aliases[name.asname or name.name] = f"{node.module}.{name.name}"
                yield node.lineno, f"{node.module}.{name.name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and (dotted := _dotted(node, aliases)):
            yield node.lineno, dotted


def _dotted(node: ast.expr, aliases: Mapping[str, str]) -> str | None:
    if isinstance(node, ast.Name):
        return aliases.get(node.id, node.id)
    if isinstance(node, ast.Attribute) and (base := _dotted(node.value, aliases)):
        return f"{base}.{node.attr}"
    return None
