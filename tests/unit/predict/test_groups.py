"""Calls that may run side by side."""

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.errors import CodecError
from paceline.predict.events import Event, Said, Step
from paceline.predict.groups import ParallelGroups, Turn
from tests.unit.predict.sessions import call, step


def learnt(*sessions: list[Event]) -> ParallelGroups:
    found = ParallelGroups()
    for events in sessions:
        turn = Turn()
        for event in events:
            found.observe(turn, event)
    return found


def groups(*sessions: list[Event], read_only: str = "abcdef") -> list[tuple[str, ...]]:
    return learnt(*sessions).groups(lambda name: name in read_only)


APART: list[Event] = [
    Said("use 4711"),
    step("a", {"price": 1234}, key=4711),
    step("b", {"stock": 5678}, key=4711),
    step("c", "fine", key=4711),
]


def test_calls_that_never_needed_one_another_are_a_group() -> None:
    """Tools that were called in one turn and never took from one another are one group. (S2-10)"""
    assert groups(APART, APART, APART) == [("a", "b", "c")]


def test_seldom_is_not_enough() -> None:
    """Tools that were seen together only twice are in no group. (S2-10)"""
    assert groups(APART, APART) == []


def test_one_dependence_is_enough() -> None:
    """A tool that once took a value from the other's result is never beside it. (S2-10)"""
    needs: list[Event] = [
        Said("use 4711"),
        step("a", {"id": 9876}, key=4711),
        step("b", 1, key=9876),
    ]
    assert ("a", "b") not in groups(*[APART] * 9, needs)
    assert ("b", "c") in groups(*[APART] * 9, needs)


def test_a_value_that_was_there_before_is_no_dependence() -> None:
    """A value that the user gave depends on no result that repeats it. (S2-10)"""
    repeats: list[Event] = [
        Said("use 4711 with 99"), step("a", {"key": 4711}, key=99), step("b", 1, key=4711),
    ]  # fmt: skip
    assert groups(*[repeats] * 3) == [("a", "b")]


def test_what_changes_something_is_in_no_group() -> None:
    """A tool that may change something is in no group. (S2-10)"""
    assert groups(*[APART] * 3, read_only="bc") == [("b", "c")]


def test_calls_of_one_step_are_beside_one_another() -> None:
    """What a model asks for at once does not depend on one another; a tool may be beside itself. (S2-10)"""
    step_: Event = Step((call("a", 1, key=1), call("a", 2, key=2)))
    assert groups(*[[Said("x"), step_]] * 3) == [("a", "a")]


def test_pairs_are_kept() -> None:
    """What is saved and loaded gives the same groups; what is not ours is refused. (S2-49)"""
    found, other = learnt(APART, APART, APART), ParallelGroups()
    other.load(found.save())
    assert other.groups(lambda _: True) == found.groups(lambda _: True)
    with pytest.raises(CodecError):
        other.load([1])


@settings(max_examples=50)
@given(
    st.lists(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(10, 14), st.integers(10, 14))))
)
def test_no_group_holds_a_pair_that_depended(sessions: list[list[tuple[str, int, int]]]) -> None:
    """Whatever was seen, no two tools of a group ever needed one another, or change anything. (S2-10)"""
    found = ParallelGroups()
    depended: set[tuple[str, ...]] = set()
    for calls in sessions:
        turn, watched = Turn(), Turn()
        for name, key, gave in calls:
            event = step(name, gave, key=key)
            found.observe(turn, event)
            depended |= {tuple(sorted(each[:2])) for each in watched.hear(event) if each[2]}
    for group in found.groups(lambda name: name != "d"):
        assert "d" not in group
        assert not set(combinations(group, 2)) & depended
