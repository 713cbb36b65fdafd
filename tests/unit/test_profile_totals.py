"""What names came to: sums, percentiles, and the bound on what making one free could gain."""

import math
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from paceline.metrics.profile.profile import Profile, data, profile
from paceline.metrics.profile.totals import AllRuns, Rank, Total, ranked
from paceline.metrics.span import Span
from tests.spans import BEGIN_NS, MS, a_run, a_span, runs

Program = tuple[str, str, object]
"""A name, what it does ("work", "then" or "beside"), and how long or with which parts."""


def by_name(found: Profile) -> dict[str, Total]:
    return {total.name: total for total in found.totals}


def test_a_run_that_can_be_checked_by_eye() -> None:
    """Calls, total, self, queue and path time, p95 and the longest of each name. (S0-01)"""
    found = by_name(profile(a_run()))
    assert found["search"] == Total(
        "search", 1, 590 * MS, 180 * MS, 150 * MS, 590 * MS, 590 * MS, 180 * MS, 150 * MS, 650 * MS
    )
    assert found["weather"].total_ns == found["weather"].self_ns == 610 * MS
    assert (found["weather"].p95_ns, found["weather"].path_ns) == (310 * MS, 0)
    assert found["answer"].at_best_ns == 0
    assert found["late"].at_best_ns == 1_240 * MS


def test_a_name_within_itself_counts_once() -> None:
    """The total of a name leaves out its calls within others of its own, at any depth."""
    spans = [
        a_span("1", 0, 100, None, "a"),
        a_span("2", 10, 60, "1", "b"),
        a_span("3", 20, 50, "2", "a"),
        a_span("4", 70, 110, "1", "a"),
    ]
    found = by_name(profile(spans))
    assert (found["a"].calls, found["a"].total_ns, found["a"].longest_ns) == (3, 110, 100)
    assert found["a"].self_ns + found["b"].self_ns == 110


@given(runs())
def test_nothing_is_lost_by_adding_up(spans: list[Span]) -> None:
    """Calls, self times and path times of all names sum to those of the run; p95 is by rank."""
    found = profile(spans)
    assert sum(total.calls for total in found.totals) == len(spans)
    assert sum(t.self_ns for t in found.totals) == sum(node.self_ns for node in found.tree.nodes)
    assert found.root is not None
    assert sum(total.path_ns for total in found.totals) == found.root.end_ns - found.root.start_ns
    for total in found.totals:
        times = sorted(span.took_ns for span in spans if span.name == total.name)
        assert total.p95_ns == times[math.ceil(0.95 * len(times)) - 1]
        assert 0 <= total.path_queue_ns <= total.path_ns
        assert total.path_ns <= total.self_ns


@pytest.mark.parametrize(
    ("by", "first"),
    [(Rank.PATH, "fetch"), (Rank.TOTAL, "rates"), (Rank.SELF, "rates"), (Rank.P95, "rates")],
)
def test_names_are_ranked(by: Rank, first: str) -> None:
    """The most comes first, by each rank, and no more than asked for. (S0-01)"""
    found = ranked(profile(a_run()).totals, by, 3)
    assert len(found) == 3
    assert found[0].name == first
    values = [getattr(total, f"{by}_ns") for total in ranked(profile(a_run()).totals, by)]
    assert values == sorted(values, reverse=True)


def spans_of(program: Program, free: str | None = None) -> list[Span]:
    """What is recorded of a program; every call named `free` is answered at once."""
    found: list[Span] = []

    def run(part: Program, begin: int, parent: str | None) -> int:
        name, what, inner = part
        if name == free:
            return begin
        own, end = f"{len(found)}", begin
        found.append(a_span(own, begin, begin, parent, name))
        if isinstance(inner, int):
            end += inner
        elif isinstance(inner, list):
            for each in inner:
                end = max(end, run(each, end if what == "then" else begin, own))
        found[int(own)] = a_span(own, begin, end, parent, name)
        return end

    run(program, 0, None)
    return found


_names = st.sampled_from("abc")
_work = st.tuples(_names, st.just("work"), st.integers(0, 9))
_programs = st.recursive(
    _work,
    lambda parts: st.tuples(
        _names, st.sampled_from(["then", "beside"]), st.lists(parts, min_size=1, max_size=4)
    ),
    max_leaves=10,
)


def check_bound(parts: list[Program], name: str, bound: Callable[[Profile, Total], int]) -> None:
    """Without a name, a program takes at least its bound, and at most as long as it did."""
    program: Program = ("run", "beside", parts)
    found = profile(spans_of(program))
    total = by_name(found).get(name)
    if total is None:
        return
    took = spans_of(program, free=name)[0].took_ns
    assert bound(found, total) <= took <= spans_of(program)[0].took_ns


# `a` is never on the critical path, and still the run would be shorter without it.
_HIDDEN: list[Program] = [
    ("x", "then", [("a", "work", 5), ("b", "work", 5)]),
    ("c", "work", 8),
]


@given(st.lists(_programs, min_size=1, max_size=4), _names)
@example(_HIDDEN, "a")
def test_no_run_beats_its_bound(parts: list[Program], name: str) -> None:
    """Whatever runs one after the other or in parallel: with all calls of a name answered at once,
    it is never faster than `at_best_ns` says. (S1-60)"""
    check_bound(parts, name, lambda found, total: total.at_best_ns or 0)


def test_the_critical_path_alone_is_no_bound() -> None:
    """Taking a name's part of the critical path for all that could be gained is found wrong."""

    def naive(found: Profile, total: Total) -> int:
        assert found.root is not None
        return found.root.span.took_ns - total.path_ns

    with pytest.raises(AssertionError):
        check_bound(_HIDDEN, "a", naive)


def test_runs_add_up() -> None:
    """Over many runs, sums are exact and p95 within 1 %; a rank of the path is one of self time."""
    every = AllRuns()
    for n in range(100):
        every.add(
            [
                a_span(f"{n}", 0, 1_000 * (n + 1), None, "a"),
                a_span(f"{n}-1", 0, 500, f"{n}", "b"),
                a_span(f"{n}-2", 250, 750, f"{n}", "b", queue_ns=7),
            ]
        )
    a, b = every.totals()
    assert every.runs == 100
    assert (a.name, a.calls, a.total_ns, a.self_ns) == ("a", 100, 5_050_000, 5_050_000 - 75_000)
    assert a.p95_ns == pytest.approx(95_000, rel=0.01)
    assert (b.calls, b.total_ns, b.queue_ns, b.at_best_ns) == (200, 100_000, 700, None)


def test_data_says_it_all() -> None:
    """The profile as data has each call with its flaws and its part of the path, and the names."""
    told = data(profile(a_run()))
    assert (told["run"], told["root"], told["total_ns"]) == ("run", "1", 1_240 * MS)
    calls = told["calls"]
    assert isinstance(calls, list)
    assert sum(call["path_ns"] for call in calls) == 1_240 * MS
    assert {call["id"]: call["flaws"] for call in calls if call["flaws"]} == {
        "7-refresh": ["outside"],
        "9": ["orphan"],
    }
    path = told["path"]
    assert isinstance(path, list)
    assert path[0] == {"call": "1", "start_ns": BEGIN_NS, "end_ns": BEGIN_NS + 10 * MS}
    assert data(profile([]))["run"] is None
