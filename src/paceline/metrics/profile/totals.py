"""What the calls of each name came to, in one run or in all that is recorded. Pure."""

import math
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Final, final

import msgspec

from paceline.metrics.profile.critical import Piece
from paceline.metrics.profile.tree import Node, Tree, covered_ns, self_times
from paceline.metrics.sketch import Sketch
from paceline.metrics.span import Span

__all__ = ["AllRuns", "Rank", "Total", "ranked", "totals"]

_P95: Final = 0.95


class Rank(StrEnum):
    """What the names are ranked by; the most comes first."""

    PATH = "path"
    TOTAL = "total"
    SELF = "self"
    P95 = "p95"


class Total(msgspec.Struct, frozen=True, gc=False):
    """The calls of one name. Nanoseconds.

    `total_ns` counts the time of a call within another of the same name once. `p95_ns` is by nearest rank.
    `path_ns` is its part of the critical path, of that `path_queue_ns` waiting for capacity.

    `at_best_ns` is what the run could not have been faster than, had all calls of this name been
    answered in no time (from a cache, say): its time without every moment in which one of them was
    under way. That holds if all else takes as long as it did, waiting included, and starts once
    what it waited for is done: along any chain of such waits, only those moments can fall away.
    None where that is not about one run.
    """

    name: str
    calls: int
    total_ns: int
    self_ns: int
    queue_ns: int
    p95_ns: int
    longest_ns: int
    path_ns: int = 0
    path_queue_ns: int = 0
    at_best_ns: int | None = None


def totals(tree: Tree, path: Sequence[Piece]) -> list[Total]:
    """By name, in alphabetical order."""
    by_name: dict[str, list[int]] = {}
    for place, node in enumerate(tree.nodes):
        if node.span.speculated:  # nobody waited for it
            continue
        by_name.setdefault(node.span.name, []).append(place)
    first_times = _first_times(tree)
    on_path, queued = _on_path(tree, path)
    run = tree.below(tree.main) if tree.main is not None else range(0)
    root = tree.nodes[tree.main] if tree.main is not None else None
    found: list[Total] = []
    for name, places in sorted(by_name.items()):
        nodes = [tree.nodes[place] for place in places]
        times = sorted([node.span.took_ns for node in nodes])
        under_way = [tree.nodes[place] for place in places if place in run]
        found.append(
            Total(
                name,
                len(nodes),
                sum([first_times[place] for place in places]),
                sum([node.self_ns for node in nodes]),
                sum([node.span.queue_ns for node in nodes]),
                times[math.ceil(_P95 * len(times)) - 1],
                times[-1],
                on_path.get(name, 0),
                queued.get(name, 0),
                None if root is None else _at_best(root, under_way),
            )
        )
    return found


def ranked(found: Iterable[Total], by: Rank, most: int | None = None) -> list[Total]:
    """The first `most` by this rank."""

    def key(total: Total) -> tuple[int, int, str]:
        value = {
            Rank.PATH: total.path_ns,
            Rank.TOTAL: total.total_ns,
            Rank.SELF: total.self_ns,
            Rank.P95: total.p95_ns,
        }[by]
        return -value, -total.self_ns, total.name

    return sorted(found, key=key)[:most]


@final
class AllRuns:
    """The totals of many runs, added one by one; percentiles within 1 %."""

    def __init__(self) -> None:
        self.runs = 0
        self._sums: dict[str, list[int]] = {}
        self._times: dict[str, Sketch] = {}

    def add(self, spans: Sequence[Span]) -> None:
        """Counts the spans of one run."""
        self.runs += 1
        spans = [span for span in spans if not span.speculated]
        by_id = {span.id: span for span in spans}
        times: dict[str, list[int]] = {}
        for span, self_ns in zip(spans, self_times(spans), strict=True):
            sums = self._sums.setdefault(span.name, [0, 0, 0])
            caller = by_id.get(span.parent_id or "")
            alike = caller is not None and caller is not span and caller.name == span.name
            sums[0] += _outside(span, caller if alike else None)
            sums[1] += self_ns
            sums[2] += span.queue_ns
            times.setdefault(span.name, []).append(span.took_ns)
        for name, took in times.items():
            self._times.setdefault(name, Sketch()).add_all(took)

    def totals(self) -> list[Total]:
        """By name, in alphabetical order; for `total_ns`, only the call that made a call counts as
        around it."""
        found: list[Total] = []
        for name, times in sorted(self._times.items()):
            p95 = round(times.quantile(_P95) or 0)
            total_ns, self_ns, queue_ns = self._sums[name]
            longest_ns = round(times.max or 0)
            found.append(Total(name, times.count, total_ns, self_ns, queue_ns, p95, longest_ns))
        return found


def _first_times(tree: Tree) -> list[int]:
    """What of each node's time is not within that of a node of the same name above it."""
    above: list[tuple[str, int | None]] = []
    innermost: dict[str, int] = {}
    times: list[int] = []
    for place, node in enumerate(tree.nodes):
        while len(above) > node.depth:
            name, outer = above.pop()
            if outer is None:
                del innermost[name]
            else:
                innermost[name] = outer
        outer = innermost.get(node.span.name)
        times.append(_outside(node.span, None if outer is None else tree.nodes[outer].span))
        above.append((node.span.name, outer))
        innermost[node.span.name] = place
    return times


def _outside(span: Span, other: Span | None) -> int:
    around = [] if other is None else [(other.start_ns, other.end_ns)]
    return span.took_ns - covered_ns(around, span.start_ns, span.end_ns)


def _on_path(tree: Tree, path: Sequence[Piece]) -> tuple[dict[str, int], dict[str, int]]:
    total: dict[str, int] = {}
    queued: dict[str, int] = {}
    for piece in path:
        span = tree.nodes[piece.place].span
        total[span.name] = total.get(span.name, 0) + piece.took_ns
        # A call waits before it runs; further waits of a call that is tried again count as then.
        waiting_ns = min(piece.end_ns, span.start_ns + span.queue_ns) - piece.start_ns
        queued[span.name] = queued.get(span.name, 0) + max(0, waiting_ns)
    return total, queued


def _at_best(root: Node, under_way: Iterable[Node]) -> int:
    took_ns = root.end_ns - root.start_ns
    intervals = [(node.start_ns, node.end_ns) for node in under_way]
    return took_ns - covered_ns(intervals, root.start_ns, root.end_ns)
