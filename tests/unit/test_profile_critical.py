"""The critical path: disjoint pieces, in order, as long as the run, each the right span's."""

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given

from paceline.metrics.profile.critical import Piece, critical_path
from paceline.metrics.profile.tree import Tree, tree_of
from paceline.metrics.span import Span
from tests.spans import BEGIN_NS, MS, a_run, a_span, runs

Path = Sequence[Piece]


def leaves_at(tree: Tree, root: int, at_ns: int) -> list[int]:
    """The active spans at a moment in whose course nothing else is active, by looking at all."""
    active = [p for p in tree.below(root) if tree.nodes[p].start_ns <= at_ns < tree.nodes[p].end_ns]
    return [p for p in active if not any(child in active for child in tree.nodes[p].children)]


def check_path(tree: Tree, root: int, path: Path) -> None:
    """The three laws, and whose each moment is."""
    node = tree.nodes[root]
    assert sum(piece.took_ns for piece in path) == node.end_ns - node.start_ns
    at_ns = node.start_ns
    for number, piece in enumerate(path):
        assert piece.start_ns == at_ns
        assert piece.end_ns > piece.start_ns
        assert number == 0 or path[number - 1].place != piece.place
        at_ns = piece.end_ns
    for piece in path:
        for moment in range(piece.start_ns, piece.end_ns):
            leaves = leaves_at(tree, root, moment)
            assert piece.place in leaves
            last_ns = max(tree.nodes[leaf].end_ns for leaf in leaves)
            assert tree.nodes[piece.place].end_ns == last_ns


@given(runs())
def test_the_pieces_are_the_run(spans: list[Span]) -> None:
    """Of any root, the pieces follow each other without a gap, sum to its wall time exactly, and
    each belongs to the active leaf that finishes last. (S0-01)"""
    tree = tree_of(spans)
    for root in tree.roots:
        check_path(tree, root, critical_path(tree, root))


def test_a_run_that_can_be_checked_by_eye() -> None:
    """Time without children is the parent's; of parallel calls, the one that finishes last."""
    tree = tree_of(a_run())
    path = [
        (tree.nodes[p.place].span.id, (p.start_ns - BEGIN_NS) // MS, (p.end_ns - BEGIN_NS) // MS)
        for p in critical_path(tree)
    ]
    assert path == [
        ("1", 0, 10),
        ("2", 10, 300),
        ("1", 300, 310),
        ("3", 310, 470),
        ("4", 470, 880),
        ("3", 880, 900),
        ("1", 900, 905),
        ("7", 905, 906),
        ("1", 906, 910),
        ("8", 910, 1_230),
        ("1", 1_230, 1_240),
    ]


def test_nobody_waits_for_what_outlives_its_parent() -> None:
    """What goes on after its parent ended holds nothing up from then on."""
    tree = tree_of([a_span("1", 0, 100), a_span("2", 10, 20, "1"), a_span("3", 15, 90, "2")])
    path = [(tree.nodes[p.place].span.id, p.took_ns) for p in critical_path(tree)]
    assert path == [("1", 10), ("2", 5), ("3", 5), ("1", 80)]


def test_what_took_no_time_has_no_path() -> None:
    """No spans, or a root without duration, have no pieces."""
    assert critical_path(tree_of([])) == ()
    assert critical_path(tree_of([a_span("1", 5, 5), a_span("2", 5, 5, "1")])) == ()


def _chosen_by(key: Callable[[Tree, int], int], *, leaves_only: bool = True) -> Callable[..., Path]:
    """A path that gives every moment to the wrong span."""

    def path(tree: Tree, root: int) -> Path:
        pieces: list[Piece] = []
        node = tree.nodes[root]
        for at_ns in range(node.start_ns, node.end_ns):
            leaves = leaves_at(tree, root, at_ns)
            place = min(leaves, key=lambda leaf: key(tree, leaf)) if leaves_only else root
            if pieces and pieces[-1].place == place:
                at_ns = pieces.pop().start_ns  # noqa: PLW2901
            pieces.append(Piece(place, at_ns, at_ns + 1))
        return pieces

    return path


@pytest.mark.parametrize(
    "broken",
    [
        _chosen_by(lambda tree, leaf: tree.nodes[leaf].end_ns),
        _chosen_by(lambda tree, leaf: -tree.nodes[leaf].start_ns),
        _chosen_by(lambda tree, leaf: leaf, leaves_only=False),
        lambda tree, root: critical_path(tree, root)[1:],
        lambda tree, root: critical_path(tree, root)[::-1],
        lambda tree, root: [*critical_path(tree, root), *critical_path(tree, root)],
    ],
    ids=["finishes first", "began last", "the root's all", "a gap", "no order", "twice"],
)
def test_seeded_faults_show(broken: Callable[..., Path]) -> None:
    """A path that chooses another span, or leaves out, doubles or disorders pieces, is found."""

    tree = tree_of(
        [
            a_span("1", 0, 20),
            a_span("2", 2, 10, "1"),
            a_span("3", 4, 15, "1"),
            a_span("4", 5, 8, "3"),
            a_span("5", 6, 12, "1"),
        ]
    )
    check_path(tree, 0, critical_path(tree, 0))
    with pytest.raises(AssertionError):
        check_path(tree, 0, broken(tree, 0))
