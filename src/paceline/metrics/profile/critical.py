"""What held a run up: the critical path, exact to the nanosecond. Pure.

The time of a root is cut wherever a span begins or ends. Of each piece, the active spans in whose
course nothing else is active are what is being worked on; the one of them that finishes last held
the run up, and gets the piece. So the pieces are disjoint, in order, and as long as the root. Spans
count while their parents run: nobody waits for what goes on longer.
"""

from heapq import heappop, heappush

import msgspec

from paceline.metrics.profile.tree import Tree

__all__ = ["Piece", "critical_path"]


class Piece(msgspec.Struct, frozen=True, gc=False):
    """A part of the root's time in which one span held it up; `place` is its in `Tree.nodes`."""

    place: int
    start_ns: int
    end_ns: int

    @property
    def took_ns(self) -> int:
        """How long."""
        return self.end_ns - self.start_ns


def critical_path(tree: Tree, root: int | None = None) -> tuple[Piece, ...]:
    """The pieces of a root (of `tree.main` if left out) in order; empty if it took no time."""
    root = tree.main if root is None else root
    if root is None:
        return ()
    nodes, pieces = tree.nodes, list[Piece]()
    moments: list[tuple[int, bool, int]] = []
    for place in tree.below(root):
        node = nodes[place]
        if node.end_ns > node.start_ns:
            moments += (node.start_ns, True, place), (node.end_ns, False, place)
    moments.sort()  # at one moment, first the ends
    inside = dict.fromkeys(tree.below(root), 0)
    active: set[int] = set()
    leaves: list[tuple[int, int]] = []  # what finishes last is first; some are out of date
    now_ns = nodes[root].start_ns
    for at_ns, begins, place in moments:
        if at_ns > now_ns:
            while leaves[0][1] not in active or inside[leaves[0][1]]:
                heappop(leaves)
            _append(pieces, leaves[0][1], now_ns, at_ns)
            now_ns = at_ns
        parent = nodes[place].parent if place != root else None
        if begins:
            active.add(place)
            heappush(leaves, (-nodes[place].end_ns, place))
        else:
            active.discard(place)
        if parent is not None:
            inside[parent] += 1 if begins else -1
            if not inside[parent] and parent in active:
                heappush(leaves, (-nodes[parent].end_ns, parent))
    return tuple(pieces)


def _append(pieces: list[Piece], place: int, start_ns: int, end_ns: int) -> None:
    if pieces and pieces[-1].place == place:
        start_ns = pieces.pop().start_ns
    pieces.append(Piece(place, start_ns, end_ns))
