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


def test_a_dependence_goes_through_others() -> None:
    """A tool that takes from what was found with another one's result is not beside that one, either.
    (S2-10)"""
    chain: list[Event] = [
        Said("where is 4711"),
        step("a", {"parcel": 9876}, order=4711),
        step("b", {"city": "Oslo"}, parcel=9876),
        step("c", {"sky": "rain"}, city="Oslo"),
    ]
    assert groups(*[chain] * 3) == []
    assert learnt(*[chain] * 3).needs("c", "a")


def test_a_value_comes_from_a_result_however_often_it_is_used() -> None:
    """Of several tools that take the same value from one result each is known to need it. (S2-10)"""
    fan: list[Event] = [
        Said("where is 4711"),
        step("a", {"parcel": 9876}, order=4711),
        step("b", {"city": "Oslo"}, parcel=9876),
        step("c", {"weight": 77}, parcel=9876),
    ]
    assert groups(*[fan] * 3) == [("b", "c")]


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


NEEDS: list[Event] = [
    Said("use 4711"),
    step("b", {"id": 9876}, key=4711),
    step("a", 1, key=9876),
]


def test_who_needs_whom_is_known() -> None:
    """A tool needs another one if it took from that one's result more often than not, and not the other
    way round. (S2-10)"""
    found = learnt(*[NEEDS] * 3, *[APART] * 2)
    assert found.needs("a", "b")
    assert not found.needs("b", "a")
    assert not found.needs("a", "c")
    assert not found.needs("a", "z")
    assert not learnt(*[NEEDS] * 2).needs("a", "b")
    assert not learnt(*[NEEDS] * 3, *[APART] * 3).needs("a", "b")
    other: list[Event] = [
        Said("use 4711"),
        step("c", {"id": 9876}, key=4711),
        step("d", 1, key=9876),
    ]
    assert learnt(*[other] * 3).needs("d", "c")
    assert not learnt(*[other] * 3).needs("c", "d")


def test_a_tool_may_need_itself() -> None:
    """Of a tool that goes from each of its results to the next it is known that it needs them.
    (S2-10)"""
    pages: list[Event] = [
        Said("go"),
        step("page", {"next": "p77"}, at="first"),
        step("page", {}, at="p77"),
    ]
    assert learnt(*[pages] * 3).needs("page", "page")


def test_pairs_that_were_kept_without_direction_are_read() -> None:
    """What was saved before it was known which of two needed the other is read: the groups are the same,
    and each may have needed the other half of the times. (S2-10, S2-49)"""
    found = ParallelGroups()
    found.load({"a\nb": [9, 8], "a\nc": [3, 0], "a\na": [3, 0]})
    assert found.groups(lambda _: True) == [("a", "a"), ("a", "c")]
    assert not found.needs("a", "b")
    assert not found.needs("b", "a")


def test_pairs_are_kept() -> None:
    """What is saved and loaded gives the same groups; what is not ours is refused. (S2-49)"""
    found, other = learnt(*[APART] * 3, *[NEEDS] * 4), ParallelGroups()
    other.load(found.save())
    assert other.save() == found.save()
    assert other.groups(lambda _: True) == found.groups(lambda _: True)
    assert other.needs("a", "b")
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
