"""How large things may be, and whether modules say what they offer."""

import ast
import math
import re
import statistics
from collections.abc import Iterator

from tests.rules.sources import Sources, parsed

__all__ = ["check_exports", "check_sizes"]

FILE, MEDIAN_FILE = 500, 200
FUNCTION, P95_FUNCTION = 90, 45
CLASS = 350
PARAMETERS = 8
ERRORS = 25
PUBLIC_NAMES = 60

Function = ast.FunctionDef | ast.AsyncFunctionDef
Definition = Function | ast.ClassDef


def check_sizes(sources: Sources) -> list[str]:
    """Files, functions, classes and parameter lists beyond their budgets."""
    found: list[str] = []
    files = {path: len(text.splitlines()) for path, text in sources.items() if text.strip()}
    found += [f"{path}: {n} lines, more than {FILE}" for path, n in files.items() if n > FILE]
    if files and (median := statistics.median(files.values())) > MEDIAN_FILE:
        found.append(f"the median file has {median:g} lines, more than {MEDIAN_FILE}")
    functions: list[int] = []
    for path, tree in parsed(sources):
        errors = 0
        for node in ast.walk(tree):
            if isinstance(node, Function):
                functions.append(_lines(node))
                found += _too_large(path, node, FUNCTION)
                found += _too_many_parameters(path, node)
            elif isinstance(node, ast.ClassDef):
                found += _too_large(path, node, CLASS)
                errors += _is_error(node)
        if errors > ERRORS:
            found.append(f"{path}: {errors} exception classes, more than {ERRORS}")
    if functions:
        p95 = sorted(functions)[math.ceil(0.95 * len(functions)) - 1]
        if p95 > P95_FUNCTION:
            found.append(f"the p95 function has {p95} lines, more than {P95_FUNCTION}")
    return found


def _lines(node: Definition) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _too_large(path: str, node: Definition, budget: int) -> list[str]:
    lines = _lines(node)
    return [f"{path}:{node.lineno}: {node.name} has {lines} lines"] if lines > budget else []


def _too_many_parameters(path: str, node: Function) -> list[str]:
    a = node.args
    named = [*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg))]
    count = len([p for p in named if p.arg not in {"self", "cls"}])
    if count <= PARAMETERS:
        return []
    return [f"{path}:{node.lineno}: {node.name} has {count} parameters"]


def _is_error(node: ast.ClassDef) -> bool:
    return any(
        ast.unparse(base).endswith(("Error", "Exception", "ExceptionGroup", "Warning"))
        for base in node.bases
    )


def check_exports(sources: Sources) -> list[str]:
    """Modules whose `__all__` is missing, unsorted, or not what they define."""
    found: list[str] = []
    for path, tree in parsed(sources):
        listed = _listed(tree)
        public = {d.name for d in tree.body if isinstance(d, Definition) and d.name[0] != "_"}
        if listed is None:
            if public:
                found.append(f"{path}: no literal __all__ for {', '.join(sorted(public))}")
            continue
        known = set(_defined(tree.body))
        found += [
            f"{path}: __all__ names {n}, which is not there" for n in listed if n not in known
        ]
        found += [f"{path}: {n} is public and not in __all__" for n in sorted(public - set(listed))]
        if listed != sorted(set(listed), key=_order):
            found.append(f"{path}: __all__ is not sorted")
        if path.endswith("paceline/__init__.py") and len(listed) > PUBLIC_NAMES:
            found.append(f"{path}: {len(listed)} public names, more than {PUBLIC_NAMES}")
    return found


def _listed(tree: ast.Module) -> list[str] | None:
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            try:
                return list(ast.literal_eval(node.value))
            except ValueError:
                return None
    return None


def _defined(body: list[ast.stmt]) -> Iterator[str]:
    """Names bound at the top level, below `if` and `try` too."""
    for node in body:
        if isinstance(node, Definition):
            yield node.name
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from (name.asname or name.name for name in node.names)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (t.id for t in targets if isinstance(t, ast.Name))
        elif isinstance(node, ast.If | ast.Try):
            yield from _defined([*node.body, *node.orelse])


def _order(name: str) -> tuple[int, list[tuple[int, str]]]:
    """Constants, then classes, then the rest; numbers inside names by value."""
    kind = 0 if len(name) > 1 and name.isupper() else 1 if name[0].isupper() else 2
    chunks = re.findall(r"(\d+)|(\D+)", name)
    return kind, [(int(digits or 0), text) for digits, text in chunks]
