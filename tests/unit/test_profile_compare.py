"""Two runs side by side, and what got worse from one to the other."""

from collections.abc import Callable, Sequence

import msgspec
import pytest
from hypothesis import given

import paceline.metrics.profile.compare as comparing
from paceline.errors import UsageError
from paceline.metrics.profile.compare import Change, Comparison, Worse, compare, growth, worse
from paceline.metrics.profile.profile import Profile, profile
from paceline.metrics.span import Span
from tests.spans import MS, a_run, a_span, runs


def again(spans: Sequence[Span]) -> list[Span]:
    """The same work in another run."""
    return [msgspec.structs.replace(span, trace_id="again") for span in spans]


def of(*times: tuple[str, int], run: str = "run", whole: int | None = None) -> Profile:
    """A run whose calls, by name and time, are made one after the other."""
    end = sum(took for _, took in times)
    spans = [a_span("root", 0, whole or end, None, "root")]
    at = 0
    for n, (name, took) in enumerate(times):
        spans.append(a_span(f"{n}", at, at + took, "root", name))
        at += took
    return profile(msgspec.structs.replace(span, trace_id=run) for span in spans)


def changes(found: Comparison) -> dict[str, Change]:
    return {change.name: change for change in found.names}


def test_names_are_compared_one_by_one() -> None:
    """Every name has its calls, total, self and p95 before and after and its growth as a share;
    one that is in one run only is there, too. (V-41)"""
    before = of(("a", 10 * MS), ("a", 20 * MS), ("old", MS))
    after = of(("a", 30 * MS), ("new", 5 * MS), run="again")
    found = compare(before, after)
    assert (found.before, found.after) == ("run", "again")
    assert (found.before_ns, found.after_ns) == (31 * MS, 35 * MS)
    assert [change.name for change in found.names] == ["a", "new", "old", "root"]
    a, new, old = (changes(found)[name] for name in ("a", "new", "old"))
    assert a.before is not None
    assert a.after is not None
    assert (a.before.calls, a.before.total_ns, a.before.self_ns) == (2, 30 * MS, 30 * MS)
    assert (a.after.calls, a.before.p95_ns, a.after.p95_ns, a.p95) == (1, 20 * MS, 30 * MS, 0.5)
    assert (new.before, new.p95) == (None, None)
    assert (old.after, old.p95) == (None, None)


Compare = Callable[[Profile, Profile], Comparison]


def check_never_itself(beside: Compare) -> None:
    """The same work run again is compared with the run that was named, and no run with itself."""
    slow, quick = of(("a", 40 * MS), run="slow"), of(("a", 10 * MS), run="quick")
    found = beside(quick, slow)
    assert (found.before, found.after, found.whole) == ("quick", "slow", 3.0)
    assert beside(slow, quick).whole == -0.75
    with pytest.raises(UsageError, match="with itself") as caught:
        beside(slow, slow)
    assert caught.value.next_step


def test_a_run_is_never_compared_with_itself() -> None:
    """A re-run has the names of the run it is compared with, and is not taken for it; a run and
    itself are refused. (V-41)"""
    check_never_itself(compare)


def test_the_test_notices_what_is_found_by_name() -> None:
    """Were the first run of a name taken for the one that was asked for, or a run compared with
    itself, it would be noticed. (V-41)"""
    first: dict[str, Profile] = {}

    def by_name(before: Profile, after: Profile) -> Comparison:
        assert before.root is not None
        return compare(first.setdefault(before.root.span.name, before), after)

    def unguarded(before: Profile, after: Profile) -> Comparison:
        return Comparison("slow", "slow", 1, 1, ()) if before is after else compare(before, after)

    with pytest.raises(UsageError, match="with itself"):
        check_never_itself(by_name)
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        check_never_itself(unguarded)


def test_a_run_without_calls_is_refused() -> None:
    """There is nothing to compare in a run without calls. (V-41)"""
    for pair in ((profile([]), of(("a", 1))), (of(("a", 1)), profile([]))):
        with pytest.raises(UsageError, match="without calls"):
            compare(*pair)


@pytest.mark.parametrize(
    ("before", "after", "names"),
    [
        (100 * MS, 110 * MS, []),
        (100 * MS, 110 * MS + 1, [None, "a", "root"]),
        (100 * MS, 50 * MS, []),
        (MS, 2 * MS - 1, []),
        (MS, 2 * MS, [None, "a", "root"]),
        (5_000, 500_000, []),
    ],
)
def test_worse_is_more_than_a_share(before: int, after: int, names: list[str | None]) -> None:
    """What grew by more than a share is named, the whole run first; growth of less than a
    millisecond is no regression, whatever its share. (V-41)"""
    found = compare(of(("a", before)), of(("a", after), run="again"))
    assert [each.name for each in worse(found, 0.1)] == names


def test_a_name_can_be_worse_in_a_run_that_is_not() -> None:
    """A p95 counts where the run took as long as before, and the run where no p95 grew. (V-41)"""
    before = of(("a", 10 * MS), whole=50 * MS)
    found = compare(before, of(("a", 20 * MS), run="again", whole=50 * MS))
    assert worse(found, 0.5) == [Worse("a", 10 * MS, 20 * MS)]
    found = compare(before, of(*[("a", 10 * MS)] * 20, run="again", whole=200 * MS))
    assert [each.name for each in worse(found, 0.5)] == [None, "root"]


def test_a_name_that_is_new_is_not_worse() -> None:
    """A name that is in one run only shows in the whole time alone. (V-41)"""
    found = compare(of(("a", MS)), of(("b", 90 * MS), run="again"))
    assert [each.name for each in worse(found, 0.1)] == [None, "root"]


def test_the_least_growth_is_given() -> None:
    """The least growth that counts can be another. (V-41)"""
    found = compare(of(("a", 5_000)), of(("a", 10_000), run="again"))
    assert [each.name for each in worse(found, 0.1, least_ns=1)] == [None, "a", "root"]
    assert comparing.LEAST_NS == MS


@given(runs())
def test_the_same_again_is_no_worse(spans: list[Span]) -> None:
    """A run that took exactly what another did has not changed, whatever is in it. (V-41)"""
    found = compare(profile(spans), profile(again(spans)))
    assert worse(found, 0, least_ns=0) == []
    assert all(change.p95 in (0, None) for change in found.names)
    assert sum(change.after.calls for change in found.names if change.after) == len(spans)


def test_growth_from_nothing_has_no_share() -> None:
    """Growth is a share of what was: half as much again is 0.5, from nothing it is none. (V-41)"""
    assert (growth(2, 3), growth(2, 1), growth(0, 1)) == (0.5, -0.5, None)
    assert compare(profile(a_run()), profile(again(a_run()))).whole == 0
