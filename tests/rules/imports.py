"""Which module may import which."""

import ast
import graphlib
from collections.abc import Iterator
from typing import NamedTuple

from tests.rules.sources import Sources, parsed

__all__ = ["LAYERS", "check_cycles", "check_layers"]


class Layer(NamedTuple):
    """Parts of one height. They import what is lower; each other only if `together`."""

    parts: frozenset[str]
    together: bool


def _layer(parts: str, *, together: bool) -> Layer:
    return Layer(frozenset(parts.split()), together)


LAYERS = (
    _layer(
        "errors extras disk_space call tags clock codec config settings redaction database home breaker pricing usage "
        "retry_after messages resources hearing bounds session_settings served_models",
        together=True,
    ),
    _layer("cache metrics balance history predict", together=False),
    _layer("agents hostexec instances models tools engine advise", together=False),
    _layer("path state reporting roster", together=False),
    _layer("results fleets sessions speculation", together=False),
    _layer("runtime parts sync agent_engine", together=True),
    _layer("paceline", together=False),  # the package's own table of contents
    _layer("server integrations cli testing __main__", together=True),
)
"""Lowest first."""

FOR_OTHERS = frozenset({"testing", "__main__"})
"""Parts that nothing else of ours imports."""


class Import(NamedTuple):
    """One module imports another."""

    line: int
    target: str
    only_for_types: bool


def check_layers(sources: Sources) -> list[str]:
    """Imports that go up or sideways, and modules that belong to no layer."""
    found: list[str] = []
    names = _modules(sources)
    for path, tree in parsed(sources):
        importer = _part(names[path])
        height = _height(importer)
        if height is None:
            found.append(f"{path}: in no layer")
            continue
        for line, target, _ in _imports(tree, set(names.values())):
            if not target:
                found.append(f"{path}:{line}: relative import")
            elif not _may_import(importer, height, _part(target)):
                found.append(f"{path}:{line}: {importer} may not import {target}")
    return found


def check_cycles(sources: Sources) -> list[str]:
    """A cycle of imports, lazy ones included, those for type checkers alone not."""
    names = _modules(sources)
    known = set(names.values())
    graph = {
        names[path]: {
            target for _, target, only_for_types in _imports(tree, known) if not only_for_types
        }
        for path, tree in parsed(sources)
    }
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as exc:
        return [" -> ".join(reversed(exc.args[1]))]
    return []


def _may_import(importer: str, height: int, part: str) -> bool:
    if part == importer:
        return True
    target = _height(part)
    if target is None or part in FOR_OTHERS:
        return False
    return target < height or (target == height and LAYERS[height].together)


def _height(part: str) -> int | None:
    return next((h for h, layer in enumerate(LAYERS) if part in layer.parts), None)


def _part(module: str) -> str:
    """`cache` of `paceline.cache.keys`; the package itself is a part too."""
    return module.split(".")[1] if "." in module else module


def _modules(sources: Sources) -> dict[str, str]:
    return {
        path: path.removeprefix("src/")
        .removesuffix(".py")
        .removesuffix("/__init__")
        .replace("/", ".")
        for path in sources
    }


def _imports(tree: ast.Module, modules: set[str]) -> Iterator[Import]:
    """Imports of our own modules; the target of a relative one is empty."""
    for node, only_for_types in _statements(tree, only_for_types=False):
        if isinstance(node, ast.Import):
            for name in node.names:
                if _ours(name.name):
                    yield Import(node.lineno, name.name, only_for_types)
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield Import(node.lineno, "", only_for_types)
        elif isinstance(node, ast.ImportFrom) and node.module and _ours(node.module):
            for name in node.names:
                inner = f"{node.module}.{name.name}"
                target = inner if inner in modules else node.module
                yield Import(node.lineno, target, only_for_types)


def _ours(module: str) -> bool:
    return module.partition(".")[0] == "paceline"


def _statements(node: ast.AST, *, only_for_types: bool) -> Iterator[tuple[ast.AST, bool]]:
    """All nodes, each with whether it stands below `if TYPE_CHECKING:`."""
    yield node, only_for_types
    if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        for statement in node.body:
            yield from _statements(statement, only_for_types=True)
        for statement in node.orelse:
            yield from _statements(statement, only_for_types=only_for_types)
        return
    for child in ast.iter_child_nodes(node):
        yield from _statements(child, only_for_types=only_for_types)
