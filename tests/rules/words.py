"""What may not stand in the code."""

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

from tests.rules.sources import Sources, dotted_uses, parsed

__all__ = ["check_ambient", "check_constructs", "check_names", "check_unfinished"]

Functions = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
Places = Mapping[str, tuple[str, ...]]
"""Where, by path or by folder ending in `/`, a name may be used all the same."""

_CLI = "src/paceline/cli/"
# A program of its own, which nobody can hand anything.
_ALONE = ("src/paceline/hostexec/sandbox/launcher.py",)

FORBIDDEN: Places = {
    "eval": (),
    "exec": ("src/paceline/agents/load.py",),
    "compile": ("src/paceline/agents/load.py",),
    "pickle": (),
    "marshal": (),
    "shelve": (),
    "print": (_CLI,),
}
"""Names that stand for what we do not do."""

AMBIENT: Places = {
    **dict.fromkeys(
        (
            f"time.{name}{unit}"
            for name in ("time", "monotonic", "perf_counter", "process_time")
            for unit in ("", "_ns")
        ),
        ("src/paceline/clock.py", *_ALONE),
    ),
    **dict.fromkeys(
        ("datetime.datetime.now", "datetime.datetime.utcnow", "datetime.date.today"), ()
    ),
    **dict.fromkeys(
        ("os.environ", "os.getenv"),
        ("src/paceline/runtime.py", "src/paceline/sync.py", _CLI, *_ALONE),
    ),
}
"""The clock and the environment of the process; all else is handed them."""

MAKES_DICE = ("src/paceline/runtime.py", "src/paceline/sync.py", _CLI)
"""Where a source of random numbers may be made without a seed."""

POOR_NAMES = frozenset({"util", "utils", "helper", "helpers", "manager", "common", "misc"})
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|NotImplementedError)\b|(?i:\bplaceholder|\bfor now\b)")
_MUTABLE = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
_MAKES_MUTABLE = frozenset({"list", "dict", "set", "bytearray", "defaultdict", "deque"})


def check_constructs(sources: Sources) -> list[str]:
    """Shells, evaluated text, pickles, prints, globals, shared defaults, unexplained nets."""
    found = _uses(sources, FORBIDDEN)
    for path, tree in parsed(sources):
        for node in ast.walk(tree):
            if isinstance(node, ast.Global):
                found.append(f"{path}:{node.lineno}: global")
            elif isinstance(node, ast.keyword) and node.arg == "shell" and _is_true(node.value):
                found.append(f"{path}:{node.value.lineno}: shell=True")
            elif isinstance(node, Functions):
                found += [f"{path}:{d.lineno}: mutable default" for d in _mutable_defaults(node)]
        found += [
            f"{path}:{line}: broad except without a reason" for line in _unexplained(sources[path])
        ]
    return found


def check_ambient(sources: Sources) -> list[str]:
    """Reads of the clock, the environment or chance that nobody handed in."""
    found = _uses(sources, AMBIENT)
    for path, tree in parsed(sources):
        allowed = _allowed(path, MAKES_DICE)
        for line, name in dotted_uses(tree):
            if re.fullmatch(r"random\.[a-z]\w*", name):
                found.append(f"{path}:{line}: {name}")
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and not node.args and not allowed:
                made = ast.unparse(node.func)
                if made.rpartition(".")[2] in {"Random", "SystemRandom"}:
                    found.append(f"{path}:{node.lineno}: {made}() without a seed")
    return found


def check_unfinished(sources: Sources) -> list[str]:
    """Words that stand for work not done."""
    return [
        f"{path}:{line}: {match[0]}"
        for path, text in sources.items()
        for line, row in enumerate(text.splitlines(), 1)
        if (match := UNFINISHED.search(row))
    ]


def check_names(sources: Sources) -> list[str]:
    """Files and folders whose name says nothing of what is inside."""
    return [
        f"{path}: {word} is no name"
        for path in sources
        for part in PurePosixPath(path).with_suffix("").parts
        for word in POOR_NAMES.intersection(part.split("_"))
    ]


def _uses(sources: Sources, forbidden: Places) -> list[str]:
    return [
        f"{path}:{line}: {name}"
        for path, tree in parsed(sources)
        for line, name in sorted(set(dotted_uses(tree)))
        if name in forbidden and not _allowed(path, forbidden[name])
    ]


def _allowed(path: str, places: tuple[str, ...]) -> bool:
    return any(path.startswith(p) if p.endswith("/") else path == p for p in places)


def _unexplained(text: str) -> Iterator[int]:
    """Lines that catch everything and say neither there nor on the line above why."""
    above = ""
    for line, row in enumerate(text.splitlines(), 1):
        if re.search(r"# noqa: BLE001(?! \(.+)", row) and not above.lstrip().startswith("# "):
            yield line
        above = row


def _is_true(node: ast.expr) -> bool:
    return not (isinstance(node, ast.Constant) and node.value is False)


def _mutable_defaults(node: Functions) -> Iterator[ast.expr]:
    for default in (*node.args.defaults, *filter(None, node.args.kw_defaults)):
        if isinstance(default, _MUTABLE) or (
            isinstance(default, ast.Call) and ast.unparse(default.func) in _MAKES_MUTABLE
        ):
            yield default
