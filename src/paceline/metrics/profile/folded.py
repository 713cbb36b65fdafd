"""Folded stacks, the format that flame graphs are drawn from. Pure.

One line a stack: its frames, outermost first, with ";" between them, a space, and a whole number;
here microseconds of self time. Work done in parallel counts as often as it was done.
"""

from collections.abc import Iterator
from typing import Final

from paceline.metrics.profile.tree import Tree

__all__ = ["folded"]

_DEEPEST: Final = 256
_DEEPER: Final = "(deeper)"
_NS_PER_US: Final = 1_000


def folded(tree: Tree) -> Iterator[str]:
    """The lines, the heaviest stack first; stacks of less than half a microsecond are left out."""
    stack: list[str] = []
    times: dict[str, int] = {}
    for node in tree.nodes:
        del stack[min(node.depth, _DEEPEST) :]
        around = stack[-1] + ";" if stack else ""
        stack.append(around + (_frame(node.span.name) if node.depth < _DEEPEST else _DEEPER))
        times[stack[-1]] = times.get(stack[-1], 0) + node.self_ns
    for whole, self_ns in sorted(times.items(), key=lambda item: (-item[1], item[0])):
        if us := (self_ns + _NS_PER_US // 2) // _NS_PER_US:
            yield f"{whole} {us}"


def _frame(name: str) -> str:
    """A name without what separates frames and lines."""
    plain = "".join(":" if c == ";" else c if c.isprintable() else " " for c in name)
    return " ".join(plain.split()) or "(no name)"
