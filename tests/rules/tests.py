"""What a test must have and may not do."""

import ast
import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from tests.rules.sources import Sources, dotted_uses, parsed

__all__ = ["check_excuses", "check_promises"]

EXCUSES = frozenset(
    {
        "time.sleep",
        "pytest.skip",
        "pytest.xfail",
        "pytest.importorskip",
        "pytest.mark.skip",
        "pytest.mark.skipif",
        "pytest.mark.xfail",
        "unittest.skip",
        "unittest.skipIf",
        "unittest.skipUnless",
    }
)
PROMISE = re.compile(r"(\.|\. \([A-Z][^()]*\d\))$")
ASSERTS = re.compile(
    r"\bassert\b|\braises\(|\.check\b|\bcheck\w*\(|expect|\bassert_\w+|run_state_machine"
)

Function = ast.FunctionDef | ast.AsyncFunctionDef


def check_promises(sources: Sources) -> list[str]:
    """Tests without a promise in words, and tests that assert nothing."""
    found: list[str] = []
    for path, tree in parsed(sources):
        if not PurePosixPath(path).name.startswith("test_"):
            continue
        asserting = _asserting(tree)
        for test in _tests(tree.body):
            where = f"{path}:{test.lineno}: {test.name}"
            promise = ast.get_docstring(test)
            if promise is None:
                found.append(f"{where} promises nothing")
            elif not PROMISE.search(" ".join(promise.split())):
                found.append(f"{where}: its promise does not end in a full stop or row ids")
            if not _asserts(test, asserting):
                found.append(f"{where} asserts nothing")
    return found


def check_excuses(sources: Sources) -> list[str]:
    """Tests that may be left out, may fail, or wait in real time."""
    return [
        f"{path}:{line}: {name}"
        for path, tree in parsed(sources)
        for line, name in sorted(set(dotted_uses(tree)))
        if name in EXCUSES
    ]


def _asserting(tree: ast.Module) -> set[str]:
    """Functions and classes of a module that assert, by themselves or through one another."""
    found: set[str] = set()
    definitions = [node for node in tree.body if isinstance(node, Function | ast.ClassDef)]
    for _ in definitions:
        more = {node.name for node in definitions if _asserts(node, found)}
        if more == found:
            break
        found = more
    return found


def _asserts(node: Function | ast.ClassDef, asserting: set[str]) -> bool:
    body = node.body if ast.get_docstring(node) is None else node.body[1:]
    return any(
        ASSERTS.search(ast.unparse(statement))
        or any(isinstance(n, ast.Name) and n.id in asserting for n in ast.walk(statement))
        for statement in body
    )


def _tests(body: list[ast.stmt]) -> Iterator[Function]:
    for node in body:
        if isinstance(node, Function) and node.name.startswith("test_"):
            yield node
        elif isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            yield from _tests(node.body)
