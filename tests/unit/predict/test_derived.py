"""Values that are built from what stands somewhere: a number as a text, a number more, a day after."""

import random
from collections.abc import Callable, Mapping
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.errors import CodecError
from paceline.predict.arguments import ArgumentModel
from paceline.predict.context import Context
from paceline.predict.events import Called, Event, Said, Step
from paceline.predict.places import Batch, Place, derived, is_pattern, role_of, shifts
from paceline.predict.reasons import said_of
from paceline.predict.slots import Slot
from paceline.predict.sources import Argument, candidates
from paceline.predict.weights import Weights
from tests.unit.predict.sessions import step

Make = Callable[[random.Random], list[Event]]


def pages(chance: random.Random) -> list[Event]:
    return [Said("all"), *[step("list", "rows", n=n) for n in range(1, chance.randint(3, 7))]]


def offsets(chance: random.Random) -> list[Event]:
    begin, count = chance.randint(0, 1_000), chance.randint(2, 6)
    return [Said("all"), *[step("list", "rows", offset=begin + 20 * n) for n in range(count)]]


def countdown(chance: random.Random) -> list[Event]:
    begin, count = chance.randint(100, 1_000), chance.randint(2, 6)
    return [Said("down"), *[step("list", "rows", left=begin - 5 * n) for n in range(count)]]


def next_day(chance: random.Random) -> list[Event]:
    day = date(2024, 1, 1) + timedelta(days=chance.randint(0, 300))
    after = day + timedelta(days=1)
    return [Said("go"), step("hotel", day=day.isoformat()), step("car", day=after.isoformat())]


def days_before(chance: random.Random) -> list[Event]:
    day = date(2024, 1, 1) + timedelta(days=chance.randint(0, 300))
    before = day - timedelta(days=3)
    trip = step("trip", {"day": day.isoformat()})
    return [Said("go"), trip, step("remind", day=before.isoformat())]


def as_text(chance: random.Random) -> list[Event]:
    id_ = chance.randint(1_000, 99_999)
    return [Said("go"), step("find", {"id": id_, "size": 3}), step("open", key=str(id_))]


def as_number(chance: random.Random) -> list[Event]:
    id_ = chance.randint(1_000, 99_999)
    return [Said("go"), step("find", {"id": str(id_), "size": "3"}), step("open", key=id_)]


def trained(make: Make, count: int = 40) -> ArgumentModel:
    model = ArgumentModel()
    for number in range(count):
        context = Context()
        for event in make(random.Random(number)):
            if isinstance(event, Step):
                model.observe(event.calls[0], context)
            context.hear(event)
    return model


def before_last(session: list[Event]) -> tuple[Context, Called]:
    context = Context()
    for event in session[:-1]:
        context.hear(event)
    last = session[-1]
    assert isinstance(last, Step)
    return context, last.calls[0]


def batch(pattern: str, *values: object) -> Batch:
    found = Batch(pattern, 0, {})
    found.places.extend([Place(value) for value in values])
    return found


def made(base: Batch, pattern: str) -> list[object]:
    found = base.derive(pattern)
    return [] if found is None else [place.value for place in found.places]


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (pages, "n: 1 more than the argument n of list before"),
        (offsets, "offset: 20 more than the argument offset of list before"),
        (countdown, "left: 5 less than the argument left of list before"),
        (next_day, "day: 1 more than the argument day of hotel before"),
        (days_before, "day: 3 less than day of the result of trip"),
        (as_text, "key: id of the result of find"),
        (as_number, "key: id of the result of find"),
    ],
)
def test_what_is_built_from_another_value_is_learnt(make: Make, why: str) -> None:
    """Pages one after the other, steps of any size from any begin, up and down, days before and after
    a date, numbers as texts and texts as numbers are proposed, and it is said where they are from.
    (S2-50, P-01)"""
    model = trained(make)
    for seed in range(1_000, 1_010):
        context, call = before_last(make(random.Random(seed)))
        (arguments, chance), *_ = model.propose(call.name, context)
        assert arguments == call.arguments
        assert chance > 0.8
        assert str(model.reason(call.name, context, arguments)) == why


@pytest.mark.parametrize("most", [20, 1_000, 10**6])
def test_numbers_without_a_rule_are_not_foreseen(most: int) -> None:
    """Numbers that follow nothing are not proposed with more than their small chance, whatever is
    more or less than whatever. (S2-50, P-01)"""

    def any_number(chance: random.Random) -> list[Event]:
        return [Said("go"), *[step("roll", n=chance.randint(1, most)) for _ in range(3)]]

    model = trained(any_number, 60)
    for seed in range(1_000, 1_020):
        context, call = before_last(any_number(random.Random(seed)))
        assert all(chance < 0.3 for _, chance in model.propose(call.name, context))


def known(model: ArgumentModel, tool: str, argument: str) -> Mapping[str, float]:
    return model._tools[tool].slots[argument]._patterns


def test_a_number_more_is_learnt_only_of_what_stands_nowhere() -> None:
    """Where a value stands as it is, that is where it is from, and no sum. (S2-50, P-01)"""
    model, context = ArgumentModel(), Context()
    context.hear(step("list", {"next": 4}, n=3))
    model.observe(Called("list", {"n": 4}), context)
    assert list(known(model, "list", "n")) == ["r list.next"]
    model.observe(Called("list", {"n": 5}), context)
    assert set(known(model, "list", "n")) == {"r list.next", "+2 c list.n"}


def test_a_number_more_is_used_from_the_second_time_on() -> None:
    """Any two numbers differ by something: that counts once it came again. (S2-50, P-01)"""
    slot = Slot("n")
    slot.credit(["+7 c list.n"])
    assert list(slot.patterns()) == []
    slot.credit(["+7 c list.n"])
    assert list(slot.patterns()) == ["+7 c list.n"]
    slot.credit(["c list.n"])
    assert list(slot.patterns()) == ["+7 c list.n", "c list.n"]


def test_only_the_newest_is_added_to() -> None:
    """What is more than a number is more than the latest at its place, not than one before it.
    (S2-50, P-01)"""
    slot, context = Slot("n"), Context()
    slot.credit(["+1 c list.n"])
    slot.credit(["+1 c list.n"])
    for number in (10, 50):
        context.hear(step("list", n=number))
    found = [each.key for each in candidates(Argument("list", slot, [], slot), context, Weights())]
    assert "51" in found
    assert "11" not in found


DAYS = st.dates(date(1900, 1, 1), date(2100, 1, 1))


@given(st.integers(-(10**12), 10**12), st.integers(-20_000, 20_000))
def test_what_a_number_is_more_leads_back_to_it(here: int, more: int) -> None:
    """The pattern of one number by another makes that number of it, if it is at most 10,000 more or less:
    what is farther off says more of itself than of the other. (S2-50, P-01)"""
    base, there = batch("r a.n", here), here + more
    found = list(shifts(base, there))
    assert len(found) == (0 < abs(more) <= 10_000)
    assert all(made(base, pattern) == [there] for pattern in found)


@pytest.mark.parametrize("huge", [2**53, 10**400, -(10**4299)])
def test_huge_numbers_are_no_sums(huge: int) -> None:
    """Of what no float is exact for nothing is built, and it is no number of which pages are told; nor is a
    text of so many digits a number. (S2-50, P-01)"""
    base = batch("r a.n", huge)
    assert list(shifts(base, huge + 1)) == []
    assert made(base, "+1 r a.n") == []
    assert made(batch("r a.n", "9" * 5_000), "#r a.n") == []
    assert not is_pattern(f"+{'9' * 5_000} r a.n")


@given(DAYS, st.integers(-60, 60))
def test_what_days_are_between_leads_back(day: date, days: int) -> None:
    """The pattern of one date by another makes that date of it, if there are at most 31 days between.
    (S2-50, P-01)"""
    base, there = batch("r a.day", day.isoformat()), (day + timedelta(days=days)).isoformat()
    found = list(shifts(base, there))
    assert len(found) == (0 < abs(days) <= 31)
    assert all(made(base, pattern) == [there] for pattern in found)


@pytest.mark.parametrize(
    ("here", "there"),
    [
        (True, 2),
        (1, True),
        (1, 2.5),
        (1, "2"),
        ("1", "2"),
        ("2024-05-17", 3),
        ("2024-02-30", "2024-03-01"),
        ("2024-05-17T", "2024-05-18"),
        (None, 1),
        ([1], [2]),
    ],
)
def test_what_is_no_number_or_day_is_no_sum(here: object, there: object) -> None:
    """Nothing is more than a truth value, a text that is no date, or what is of another type.
    (S2-50, P-01)"""
    assert list(shifts(batch("r a.x", here), there)) == []


@pytest.mark.parametrize("value", [True, None, 2.5, "1", "2024-02-30", [1]])
def test_to_what_is_no_number_or_day_nothing_is_added(value: object) -> None:
    """Of what is neither a whole number nor a date nothing more is made. (S2-50, P-01)"""
    assert made(batch("r a.x", value), "+1 r a.x") == []


def test_a_calendar_ends() -> None:
    """A day that no calendar has is not proposed; others of the place are. (S2-50, P-01)"""
    days = batch("r a.day", "9999-12-31", "2024-05-17")
    assert made(days, "+1 r a.day") == ["2024-05-18"]
    assert made(batch("r a.day", "0001-01-01"), "+-1 r a.day") == []
    assert made(days, "+99999999999 r a.day") == []


@given(st.integers(0, 10**12))
def test_a_number_and_its_text_lead_to_one_another(number: int) -> None:
    """A number is retyped as the text of it, and the text as the number. (S2-50, P-01)"""
    assert made(batch("r a.n", number), "#r a.n") == [str(number)]
    assert made(batch("r a.n", str(number)), "#r a.n") == [number]


@pytest.mark.parametrize("value", [True, None, "", "x7", "-7", "1.5", "²", [1]])
def test_what_is_no_number_has_no_other_type(value: object) -> None:
    """Truth values and texts that are no whole number stay what they are. (S2-50)"""
    assert made(batch("r a.n", value), "#r a.n") == []


def test_a_number_of_a_message_is_found_once() -> None:
    """What stands in a message is a number and a text already: it is not retyped. (S2-50, P-01)"""
    context = Context()
    context.hear(Said("open 48213"))
    assert not any(found.pattern[0] == "#" for found, _ in context.holders("48213"))
    context.hear(step("find", {"id": 48213}))
    assert "#r find.id" in [found.pattern for found, _ in context.holders("48213")]


@pytest.mark.parametrize(
    ("pattern", "base", "role"),
    [
        ("r a.b", None, "r"),
        ("u ~id", None, "u"),
        ("*u ~id", "u ~id", "u"),
        ("#r a.b", "r a.b", "r"),
        ("+3 c a.b", "c a.b", "c"),
        ("+-3 a date", "a date", "a"),
        ("r a.b\x1dx,y", "r a.b", "r"),
        ("#+3 c a.b", "+3 c a.b", "c"),
    ],
)
def test_a_pattern_is_of_the_role_of_its_base(pattern: str, base: str | None, role: str) -> None:
    """However it is built, it is known of which pattern and of whose role one is. (S2-50)"""
    assert derived(pattern) == base
    assert role_of(pattern) == role
    assert is_pattern(pattern)


@pytest.mark.parametrize(
    "text", ["", "x", "#", "*", "+", "+3", "+3 ", "+x r a", "+ r a", "+1.5 r a"]
)
def test_what_is_no_pattern_is_refused(text: str) -> None:
    """A saved source that nothing is like, such as one that is more by what is no number, is refused.
    (S2-49)"""
    assert not is_pattern(text)
    slot = Slot("n")
    saved = slot.save()
    assert isinstance(saved, dict)
    with pytest.raises(CodecError):
        slot.load({**saved, "patterns": {text: 2.0}})


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("#r find.id", "id of the result of find"),
        ("+3 c list.n", "3 more than the argument n of list before"),
        ("+-3 r trip.day", "3 less than day of the result of trip"),
        ("*r list.ids[*]", "all of ids[*] of the result of list"),
    ],
)
def test_a_built_source_is_said_in_words(pattern: str, words: str) -> None:
    """Words say of a number as text where it is from, and of a sum how much more or less. (S2-50)"""
    assert said_of(pattern) == words


def test_what_was_learnt_of_sums_survives_a_restart() -> None:
    """What is proposed as more than another is proposed so after a restart. (S2-49)"""
    model, again = trained(offsets), ArgumentModel()
    again.load(model.save())
    context, call = before_last(offsets(random.Random(1_000)))
    assert again.propose("list", context) == model.propose("list", context)
    assert again.propose("list", context)[0][0] == call.arguments
