"""The spans of a run as a tree, whatever is missing or wrong in them. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Final

import msgspec

from paceline.metrics.span import Span

__all__ = ["Flaw", "Node", "Tree", "covered_ns", "self_times", "tree_of"]

_NO_PARENT: Final = -1
_SLACK_NS: Final = 1_000_000
"""Moments are noted a little after they were, by how busy the process is: less is no flaw."""


class Flaw(StrEnum):
    """What is not as it should be with a span; each is kept and shown all the same."""

    ORPHAN = "its parent is not recorded"
    CYCLE = "its parents go in a circle"
    OUTSIDE = "it ran outside the time of its parent"
    BACKWARDS = "it ended before it began"
    TWICE = "there is another with its id"


class Node(msgspec.Struct, frozen=True, gc=False):
    """A span in its tree; `parent` and `children` are places in `Tree.nodes`.

    From `start_ns` to `end_ns` its parent could have waited for it: its time, cut to that of its
    parent. `self_ns` is what its children leave of its own uncut time.
    """

    span: Span
    parent: int | None
    children: tuple[int, ...]
    depth: int
    start_ns: int
    end_ns: int
    self_ns: int
    flaws: tuple[Flaw, ...] = ()


class Tree(msgspec.Struct, frozen=True):
    """The spans of a run: each after its parent and before that one's next child."""

    nodes: tuple[Node, ...]
    roots: tuple[int, ...]
    places: Mapping[str, int]
    """By id; of spans with the same id, the first."""

    @property
    def main(self) -> int | None:
        """The root that the run is about: the longest that has no parent, else the longest; None
        without spans."""

        def rank(place: int) -> tuple[bool, bool, int, int]:
            span = self.nodes[place].span
            return not span.speculated, span.parent_id is None, span.took_ns, -place

        return max(self.roots, key=rank, default=None)

    def below(self, place: int) -> range:
        """The places of a node and of all below it."""
        depth, end = self.nodes[place].depth, place + 1
        while end < len(self.nodes) and self.nodes[end].depth > depth:
            end += 1
        return range(place, end)


def tree_of(spans: Iterable[Span]) -> Tree:
    """The tree of these spans, siblings in the order in which they began."""
    given = sorted(spans, key=lambda span: (span.start_ns, -span.end_ns, span.id))
    first: dict[str, int] = {}
    for at, span in enumerate(given):
        first.setdefault(span.id, at)
    parents = _parents(given, first)
    broken = _break_cycles(parents)
    children: list[list[int]] = [[] for _ in given]
    for at, parent in enumerate(parents):
        if parent != _NO_PARENT:
            children[parent].append(at)
    order = _preorder(parents, children)
    placed = {at: place for place, at in enumerate(order)}
    selves = self_times(given, parents)
    nodes: list[Node] = []
    for at in order:
        span = given[at]
        over = nodes[placed[parents[at]]] if parents[at] != _NO_PARENT else None
        start_ns, end_ns = _cut(span, over)
        flaws = _flaws(span, over)
        flaws += (Flaw.CYCLE,) if at in broken else ()
        flaws += (Flaw.TWICE,) if first[span.id] != at else ()
        alone = parents[at] == _NO_PARENT and not span.speculated
        if alone and span.parent_id is not None and at not in broken:
            flaws += (Flaw.ORPHAN,)
        nodes.append(
            Node(
                span,
                None if over is None else placed[parents[at]],
                tuple([placed[child] for child in children[at]]),
                0 if over is None else over.depth + 1,
                start_ns,
                end_ns,
                selves[at],
                flaws,
            )
        )
    roots = tuple([placed[at] for at, parent in enumerate(parents) if parent == _NO_PARENT])
    return Tree(tuple(nodes), roots, {id_: placed[at] for id_, at in first.items()})


def self_times(spans: Sequence[Span], parents: Sequence[int] | None = None) -> list[int]:
    """What of the time of each span no child of it covers; children may overlap.

    `parents` are places in `spans`, -1 for none; without them, they are looked up by id.
    """
    if parents is None:
        parents = _parents(spans, {span.id: at for at, span in reversed([*enumerate(spans)])})
    children: dict[int, list[tuple[int, int]]] = {}
    for at, parent in enumerate(parents):
        if parent not in (_NO_PARENT, at):
            children.setdefault(parent, []).append((spans[at].start_ns, spans[at].end_ns))
    return [
        span.took_ns - covered_ns(children[at], span.start_ns, span.end_ns)
        if at in children
        else span.took_ns
        for at, span in enumerate(spans)
    ]


def covered_ns(intervals: Iterable[tuple[int, int]], start_ns: int, end_ns: int) -> int:
    """How much of the time from `start_ns` to `end_ns` the intervals cover together."""
    covered, reached = 0, start_ns
    for begin_ns, until_ns in sorted(intervals):
        from_ns, stop_ns = max(begin_ns, reached), min(until_ns, end_ns)
        if stop_ns > from_ns:  # a span that ended before it began covers nothing
            covered += stop_ns - from_ns
            reached = stop_ns
    return covered


def _parents(spans: Sequence[Span], first: Mapping[str, int]) -> list[int]:
    """What nobody asked for took none of the time of the call in whose course it was begun: it
    stands alone, with what it called."""
    parents: list[int] = []
    for span in spans:
        parent = _NO_PARENT if span.parent_id is None else first.get(span.parent_id, _NO_PARENT)
        ahead = span.speculated and parent != _NO_PARENT and not spans[parent].speculated
        parents.append(_NO_PARENT if ahead else parent)
    return parents


def _break_cycles(parents: list[int]) -> set[int]:
    """Takes the parent away from the first span of each circle; returns those spans."""
    broken: set[int] = set()
    seen_by: dict[int, int] = {}
    for start in range(len(parents)):
        at = start
        while at != _NO_PARENT and at not in seen_by:
            seen_by[at] = start
            at = parents[at]
        if at != _NO_PARENT and seen_by[at] == start:
            circle, next_ = [at], parents[at]
            while next_ != at:
                circle.append(next_)
                next_ = parents[next_]
            first = min(circle)
            parents[first] = _NO_PARENT
            broken.add(first)
    return broken


def _preorder(parents: list[int], children: list[list[int]]) -> list[int]:
    order: list[int] = []
    waiting = [at for at in reversed(range(len(parents))) if parents[at] == _NO_PARENT]
    while waiting:
        at = waiting.pop()
        order.append(at)
        waiting.extend(reversed(children[at]))
    return order


def _cut(span: Span, over: Node | None) -> tuple[int, int]:
    start_ns, end_ns = span.start_ns, max(span.start_ns, span.end_ns)
    if over is None:
        return start_ns, end_ns
    start_ns = min(max(start_ns, over.start_ns), over.end_ns)
    return start_ns, max(start_ns, min(end_ns, over.end_ns))


def _flaws(span: Span, over: Node | None) -> tuple[Flaw, ...]:
    if span.end_ns < span.start_ns:
        return (Flaw.BACKWARDS,)
    if over is None:
        return ()
    # Of what its parent was cut itself, it is not to blame.
    early_ns = over.span.start_ns - span.start_ns
    late_ns = span.end_ns - max(over.span.start_ns, over.span.end_ns)
    return (Flaw.OUTSIDE,) if max(early_ns, late_ns) >= _SLACK_NS else ()
