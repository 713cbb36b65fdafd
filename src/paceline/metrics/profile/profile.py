"""A run's profile: its tree, its critical path, and what each name came to. Pure."""

from collections.abc import Iterable

import msgspec

from paceline.metrics.profile.critical import Piece, critical_path
from paceline.metrics.profile.totals import Total, totals
from paceline.metrics.profile.tree import Node, Tree, tree_of
from paceline.metrics.span import Span

__all__ = ["Profile", "data", "profile"]


class Profile(msgspec.Struct, frozen=True):
    """What a run spent its time on."""

    tree: Tree
    path: tuple[Piece, ...]
    """The critical path of the main root."""
    totals: tuple[Total, ...]
    """By name, in alphabetical order."""

    @property
    def root(self) -> Node | None:
        """The call that the run is about; None without any."""
        return None if self.tree.main is None else self.tree.nodes[self.tree.main]


def profile(spans: Iterable[Span]) -> Profile:
    """The profile of the spans of one run, in any order."""
    tree = tree_of(spans)
    path = critical_path(tree)
    return Profile(tree, path, tuple(totals(tree, path)))


def data(found: Profile) -> dict[str, object]:
    """The profile for machines; moments in nanoseconds of the wall clock."""
    root = found.root
    on_path: dict[int, int] = {}
    for piece in found.path:
        on_path[piece.place] = on_path.get(piece.place, 0) + piece.took_ns
    nodes = found.tree.nodes
    return {
        "version": 1,
        "run": None if root is None else root.span.trace_id,
        "root": None if root is None else root.span.id,
        "total_ns": None if root is None else root.span.took_ns,
        "calls": [
            {
                **msgspec.structs.asdict(node.span),
                "total_ns": node.span.took_ns,
                "self_ns": node.self_ns,
                "path_ns": on_path.get(place, 0),
                "flaws": [flaw.name.lower() for flaw in node.flaws],
            }
            for place, node in enumerate(nodes)
        ],
        "path": [
            {"call": nodes[p.place].span.id, "start_ns": p.start_ns, "end_ns": p.end_ns}
            for p in found.path
        ],
        "names": found.totals,
    }
