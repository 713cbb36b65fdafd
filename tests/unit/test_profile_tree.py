"""The tree of a run: every span is in it, whatever is wrong with it, and its self time is right."""

from collections import Counter
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given

from paceline.metrics.profile import tree as module
from paceline.metrics.profile.tree import Flaw, Tree, covered_ns, self_times, tree_of
from paceline.metrics.span import Span
from tests.spans import MS, a_run, a_span, runs


def flaws(spans: Sequence[Span]) -> dict[str, tuple[Flaw, ...]]:
    return {node.span.id: node.flaws for node in tree_of(spans).nodes if node.flaws}


def check_tree(tree: Tree, spans: Sequence[Span]) -> None:
    """Every span once; parents before children; times of children inside those of parents."""
    assert Counter(node.span for node in tree.nodes) == Counter(spans)
    assert [n for n, node in enumerate(tree.nodes) if node.parent is None] == sorted(tree.roots)
    for place, node in enumerate(tree.nodes):
        assert node.start_ns <= node.end_ns
        assert 0 <= node.self_ns <= node.span.took_ns
        for child in node.children:
            assert tree.nodes[child].parent == place
        if node.parent is not None:
            parent = tree.nodes[node.parent]
            assert node.parent < place
            assert place in parent.children
            assert node.span.parent_id == parent.span.id
            assert node.depth == parent.depth + 1
            assert parent.start_ns <= node.start_ns <= node.end_ns <= parent.end_ns
        assert [*tree.below(place)][1:] == _descendants(tree, place)
        covered = {
            at
            for child in node.children
            for at in range(tree.nodes[child].span.start_ns, tree.nodes[child].span.end_ns)
        }
        own = range(node.span.start_ns, node.span.end_ns)
        assert node.self_ns == len([at for at in own if at not in covered])


def _descendants(tree: Tree, place: int) -> list[int]:
    found: list[int] = []
    for child in tree.nodes[place].children:
        found += [child, *_descendants(tree, child)]
    return sorted(found)


@given(runs())
def test_every_span_has_its_place(spans: list[Span]) -> None:
    """Of any spans, each is in the tree once, after its parent, and its self time is what no child
    covers. (S0-01)"""
    check_tree(tree_of(spans), spans)


@given(runs())
def test_the_order_of_spans_does_not_matter(spans: list[Span]) -> None:
    """The same spans in another order give the same tree, if they have ids of their own."""
    own = list({span.id: span for span in spans}.values())
    assert tree_of(own) == tree_of(own[::-1])


def test_a_parent_that_is_missing_is_said() -> None:
    """A span whose parent is not recorded is a root, and marked. (S0-01)"""
    spans = [a_span("1", 0, 10), a_span("2", 2, 4, "lost")]
    assert flaws(spans) == {"2": (Flaw.ORPHAN,)}
    assert len(tree_of(spans).roots) == 2


def test_parents_in_a_circle_are_said() -> None:
    """A circle of parents is cut at its first span, which is marked; what hangs on it stays."""
    spans = [
        a_span("1", 0, 10),
        a_span("a", 2, 4, "c"),
        a_span("b", 3, 4, "a"),
        a_span("c", 3, 5, "b"),
        a_span("d", 3, 4, "c"),
        a_span("self", 6, 7, "self"),
    ]
    found = flaws(spans)
    assert {own for own, why in found.items() if Flaw.CYCLE in why} == {"a", "self"}
    tree = tree_of(spans)
    assert [tree.nodes[place].span.id for place in tree.roots] == ["1", "a", "self"]
    assert tree.nodes[tree.places["d"]].depth == 3


def test_clocks_that_disagree_are_said() -> None:
    """A span outside its parent's time by a millisecond or more, or one that ends before it begins,
    is kept and marked. (S0-01)"""
    spans = [
        a_span("1", 10 * MS, 20 * MS),
        a_span("early", 9 * MS, 12 * MS, "1"),
        a_span("nearly", 10 * MS - 9, 20 * MS + 9, "1"),
        a_span("after", 30 * MS, 40 * MS, "1"),
        a_span("back", 15 * MS, 12 * MS, "1"),
    ]
    assert flaws(spans) == {
        "early": (Flaw.OUTSIDE,),
        "after": (Flaw.OUTSIDE,),
        "back": (Flaw.BACKWARDS,),
    }


def test_an_id_that_is_there_twice_is_said() -> None:
    """Of two spans with one id both are kept, the later one marked; children go to the first."""
    tree = tree_of([a_span("1", 0, 10), a_span("1", 5, 8), a_span("2", 6, 7, "1")])
    assert [node.flaws for node in tree.nodes] == [(), (), (Flaw.TWICE,)]
    assert tree.nodes[0].children == (1,)


def test_the_main_root_is_the_call_that_was_asked_for() -> None:
    """Of several roots, the run is about the longest without a parent; none without spans."""
    assert tree_of([]).main is None
    tree = tree_of(a_run())
    assert tree.main is not None
    assert tree.nodes[tree.main].span.id == "1"
    orphans = tree_of([a_span("1", 0, 2, "x"), a_span("2", 0, 5, "y")])
    assert orphans.main is not None
    assert orphans.nodes[orphans.main].span.id == "2"


def test_children_that_overlap_are_not_counted_twice() -> None:
    """Self time is what the children leave together, in parallel or not. (S0-01)"""
    spans = [
        a_span("1", 0, 100),
        a_span("2", 10, 50, "1"),
        a_span("3", 20, 60, "1"),
        a_span("4", 90, 150, "1"),
    ]
    assert tree_of(spans).nodes[0].self_ns == 10 + 30
    assert self_times(spans) == [40, 40, 40, 60]


def test_a_run_may_be_deep() -> None:
    """Ten thousand calls inside each other are no deeper than the tree can be."""
    spans = [a_span(str(n), n, 30_000 - n, str(n - 1) if n else None) for n in range(10_000)]
    tree = tree_of(spans)
    assert tree.nodes[-1].depth == 9_999
    assert all(node.self_ns == 2 for node in tree.nodes[:-1])


def _adds_up(intervals: Sequence[tuple[int, int]], start_ns: int, end_ns: int) -> int:
    return sum(min(end, end_ns) - max(start, start_ns) for start, end in intervals)


def _forgets_the_edge(intervals: Sequence[tuple[int, int]], start_ns: int, end_ns: int) -> int:
    return covered_ns(intervals, start_ns, max([end_ns, *[end for _, end in intervals]]))


@pytest.mark.parametrize("fault", [_adds_up, _forgets_the_edge])
def test_seeded_faults_show(fault: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting overlapping children twice, or beyond their parent, is found."""
    monkeypatch.setattr(module, "covered_ns", fault)
    with pytest.raises(AssertionError):
        test_children_that_overlap_are_not_counted_twice()
